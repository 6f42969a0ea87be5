"""Formats of ViLBERT, MMF, VL-T5, VinVL, GQA and clevr-iep, and boxes and sizes that nobody knows."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from feature_files import DIM, SIZE, Made, check, made_images, mmf_info, text64, write_npz

from coattn.features.convert.run import convert
from coattn.features.store.reader import FeatureStore


@pytest.fixture
def made() -> dict[str, Made]:
    return made_images()


def converted(kind: str, source: Path, out: Path, **options: Any) -> FeatureStore:
    did = convert(kind, [source], out, dtype="float32", progress=False, **options)
    assert not did.skipped
    return FeatureStore(out)


def write_lmdb(path: Path, items: Mapping[str, Any]) -> Path:
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    with lmdb.open(str(path), map_size=2**22) as environment, environment.begin(write=True) as writing:
        for name, item in items.items():
            writing.put(name.encode(), pickle.dumps(item))
        writing.put(b"keys", pickle.dumps([name.encode() for name in items]))
    return path


def vilbert(name: str, one: Made, *, encoded: bool = False) -> dict[str, Any]:
    arrays = {"features": one.features, "boxes": one.boxes}
    plain = {"image_id": name, "image_h": SIZE[1], "image_w": SIZE[0], "num_boxes": len(one.boxes)}
    return plain | ({key: text64(value) for key, value in arrays.items()} if encoded else arrays)


@pytest.mark.parametrize("encoded", [False, True])
def test_vilberts_lmdb_keeps_its_boxes(tmp_path: Path, made: dict[str, Made], encoded: bool) -> None:
    items = {name: vilbert(name, one, encoded=encoded) for name, one in made.items()}
    check(converted("mmf-lmdb", write_lmdb(tmp_path / "a", items), tmp_path / "out"), made)


def test_boxes_of_an_image_of_unknown_size_are_refused_with_the_keys(tmp_path: Path, made: dict[str, Made]) -> None:
    items = {name: vilbert(name, one) for name, one in made.items()}
    for item in items.values():
        del item["image_h"], item["image_w"]
    with pytest.raises(
        ValueError, match=r"boxes in pixels, but no width and height .* keys are boxes, features, image_id"
    ):
        convert("mmf-lmdb", [write_lmdb(tmp_path / "a", items)], tmp_path / "out", progress=False)


def test_a_dict_in_npy_and_a_grid_of_one_batch(tmp_path: Path, made: dict[str, Made]) -> None:
    for folder in ("dicts", "grids", "bare"):
        (tmp_path / folder).mkdir()
    for name, one in made.items():
        path = tmp_path / "dicts" / f"COCO_val2014_{int(name):012d}.npy"
        np.save(path, {"image_id": name, "features": one.features, **mmf_info(one)})  # type: ignore[arg-type]
    store = converted("mmf-npy", tmp_path / "dicts", tmp_path / "a")
    check(store, made)
    np.testing.assert_array_equal(store.read(0).labels, made[store.image_ids[0]].labels)

    grid = np.random.default_rng(0).random((1, 2, 3, 5), np.float32)
    np.save(tmp_path / "grids" / "1.npy", grid)
    rows = converted("mmf-npy", tmp_path / "grids", tmp_path / "b").read(0)
    np.testing.assert_array_equal(rows.features, grid.reshape(6, 5))
    np.testing.assert_allclose(rows.boxes[4], [1 / 3, 1 / 2, 2 / 3, 1], atol=1e-7)

    np.save(tmp_path / "bare" / "1.npy", np.ones((9, 5), np.float32))  # nine regions are no grid of 3 x 3
    store = converted("mmf-npy", tmp_path / "bare", tmp_path / "c")
    assert not store.has_boxes
    assert store.sizes.tolist() == [[0, 0]]


def test_npz_without_boxes_is_a_grid_only_where_openvqa_writes_one(tmp_path: Path) -> None:
    for name, shape in (("known", (49, 2048)), ("unknown", (36, 2048))):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "1.npz", x=np.ones(shape, np.float32))
        store = converted("openvqa-npz", tmp_path / name, tmp_path / f"{name}_out")
        assert store.has_boxes == (name == "known")
        assert store.record["name"] == ("gqa-grid" if name == "known" else "unknown")


def test_images_with_and_without_boxes_are_not_mixed(tmp_path: Path, made: dict[str, Made]) -> None:
    folder = write_npz(tmp_path / "npz", made, "gqa")
    np.savez(folder / "99.npz", x=np.ones((3, DIM), np.float32))
    did = convert("openvqa-npz", [folder], tmp_path / "out", dtype="float32", progress=False)
    assert [(entry.image_id, entry.reason) for entry in did.skipped] == [("99", "has no boxes, images before it have")]
    check(FeatureStore(tmp_path / "out"), made)


def test_boxes_in_parts_of_the_image_are_not_divided_again(tmp_path: Path, made: dict[str, Made]) -> None:
    (tmp_path / "npz").mkdir()
    for name, one in made.items():
        boxes = one.boxes / np.array([*SIZE, *SIZE], np.float32)
        np.savez(tmp_path / "npz" / f"{name}.npz", x=one.features, bbox=boxes, width=SIZE[0], height=SIZE[1])
    check(converted("openvqa-npz", tmp_path / "npz", tmp_path / "out"), made)


def test_vlt5s_hdf5(tmp_path: Path, made: dict[str, Made]) -> None:
    with h5py.File(tmp_path / "val2014_obj36.h5", "w") as file:
        for name, one in made.items():
            group = file.create_group(f"COCO_val2014_{int(name):012d}")
            group["features"], group["boxes"] = one.features, one.boxes
            group["img_w"], group["img_h"] = SIZE
            group["obj_id"], group["obj_conf"] = one.labels, one.scores
            group["attr_id"], group["attr_conf"] = one.attributes, one.attribute_scores
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
    check(converted("vlt5-hdf5", tmp_path / "val2014_obj36.h5", tmp_path / "out"), made, detections=True)


def test_gqas_objects_and_grids(tmp_path: Path, made: dict[str, Made]) -> None:
    rng = np.random.default_rng(0)
    names = list(made)
    info, grids = {}, rng.random((4, 5, 7, 7), np.float32)
    for file, part in enumerate((names[:2], names[2:])):
        features, boxes = np.zeros((2, 6, DIM), np.float32), np.zeros((2, 6, 4), np.float32)
        for index, name in enumerate(part):
            count = len(made[name].boxes)
            features[index, :count], boxes[index, :count] = made[name].features, made[name].boxes
            info[name] = {"file": file, "idx": index, "objectsNum": count, "width": SIZE[0], "height": SIZE[1]}
        for kind in ("objects", "spatial"):
            (tmp_path / kind).mkdir(exist_ok=True)
            with h5py.File(tmp_path / kind / f"gqa_{kind}_{file}.h5", "w") as content:
                content["features"] = features if kind == "objects" else grids[2 * file : 2 * file + 2]
                content["bboxes"] = boxes
    for kind in ("objects", "spatial"):
        (tmp_path / kind / f"gqa_{kind}_info.json").write_text(json.dumps(info))
    store = converted("gqa-hdf5", tmp_path / "objects", tmp_path / "a", images_per_unit=3)
    check(store, made)
    assert store.record["name"] == "gqa-objects"
    store = converted("gqa-hdf5", tmp_path / "spatial" / "gqa_spatial_info.json", tmp_path / "b")
    np.testing.assert_array_equal(store.read(store.index(names[3])).features[8], grids[3, :, 1, 1])
    assert store.record["name"] == "gqa-grid"
    (tmp_path / "objects" / "gqa_objects_1.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"gqa_objects_1\.h5"):
        convert("gqa-hdf5", [tmp_path / "objects"], tmp_path / "c", progress=False)


def test_clevr_ieps_hdf5(tmp_path: Path) -> None:
    grids = np.random.default_rng(0).random((3, 6, 14, 14), np.float32)
    with h5py.File(tmp_path / "val.h5", "w") as file:
        file["features"] = grids
    store = converted("clevr-iep-hdf5", tmp_path / "val.h5", tmp_path / "out", ids="CLEVR_val_{:06d}")
    assert store.image_ids == [f"CLEVR_val_{number:06d}" for number in range(3)]
    rows = store.read(2)
    np.testing.assert_array_equal(rows.features[15], grids[2, :, 1, 1])
    np.testing.assert_allclose(rows.boxes[15], [1 / 14, 1 / 14, 2 / 14, 2 / 14], atol=1e-7)


def test_vinvls_predictions(tmp_path: Path, made: dict[str, Made]) -> None:
    lines = []
    for name, one in made.items():
        each = zip(one.features, one.boxes, one.scores, strict=True)
        objects = [
            {"class": "cat", "rect": box.tolist(), "conf": float(score), "feature": text64(row)}
            for row, box, score in each
        ]
        lines.append(f"{name}\t{json.dumps({'objects': objects, 'relations': []})}\n")
    path = tmp_path / "predictions.tsv"
    path.write_text("".join(lines))
    with pytest.raises(ValueError, match=r"its image is in no \*\.hw\.tsv beside the file"):
        convert("vinvl-tsv", [path], tmp_path / "out", progress=False)
    size = [{"height": SIZE[1], "width": SIZE[0]}]
    (tmp_path / "val.hw.tsv").write_text("".join(f"{name}\t{json.dumps(size)}\n" for name in made))
    store = converted("vinvl-tsv", path, tmp_path / "out")
    check(store, made)
    np.testing.assert_allclose(store.read(0).scores, next(iter(made.values())).scores)


def test_vinvls_features(tmp_path: Path, made: dict[str, Made]) -> None:
    lines, expected = [], {}
    for number, (name, one) in enumerate(made.items()):
        shares = one.boxes / np.array([*SIZE, *SIZE], np.float32)
        sides = shares[:, 2:] - shares[:, :2]
        wide = np.random.default_rng(number).random((len(shares), 2048), np.float32)
        expected[name] = np.hstack([wide, shares, sides[:, ::-1]])
        item = {"num_boxes": len(shares), "features": text64(expected[name])}
        lines.append(f"{name}\t{json.dumps(item)}\n" if number % 2 else f"{name}\t{len(shares)}\t{item['features']}\n")
    (tmp_path / "features.tsv").write_text("".join(lines))
    store = converted("vinvl-tsv", tmp_path / "features.tsv", tmp_path / "out")
    for name, features in expected.items():
        rows = store.read(store.index(name))
        np.testing.assert_array_equal(rows.features, features)
        np.testing.assert_array_equal(rows.boxes, features[:, 2048:2052])
        assert rows.size.tolist() == [0, 0]


def test_an_array_that_claims_more_than_it_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "npy").mkdir()
    path = tmp_path / "npy" / "1.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (60000, 60000)})
        file.write(bytes(24))
    with pytest.raises(ValueError, match="needs 14400000000 bytes, the file has 24; the limit is 1073741824 bytes"):
        convert("mmf-npy", [tmp_path / "npy"], tmp_path / "out", progress=False)
