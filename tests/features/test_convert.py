from __future__ import annotations

import base64
import csv
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from coattn.cli import main
from coattn.features.convert import convert
from coattn.features.formats.tsv import LXMERT, OLDER
from coattn.features.merge import merge
from coattn.features.provenance import same_extractor
from coattn.features.store import FeatureStore
from coattn.files import sha256_of_file

DIM = 6
SIZE = (640, 480)
# What `coattn convert openvqa` and the like write into the models that they make.
EXPECTED = {"name": "bottom-up", "settings": {}, "weights": None, "versions": {}}


class Made:
    """Regions of one image, from which the tests write files in each layout."""

    def __init__(self, seed: int, count: int, dim: int = DIM) -> None:
        rng = np.random.default_rng(seed)
        self.features = rng.normal(size=(count, dim)).astype(np.float32)
        corners = np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4)
        self.boxes = (corners * np.array([*SIZE, *SIZE])).astype(np.float32)
        self.labels = rng.integers(0, 1600, count)
        self.scores = rng.random(count, np.float32)
        self.attributes = rng.integers(0, 400, count)
        self.attribute_scores = rng.random(count, np.float32)


@pytest.fixture
def made() -> dict[str, Made]:
    return {str(7 * number + 3): Made(number, count) for number, count in enumerate([3, 1, 5, 2])}


def text64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def columns(name: str, made: Made) -> dict[str, Any]:
    arrays = {"boxes": made.boxes, "features": made.features, "objects_id": made.labels, "objects_conf": made.scores}
    arrays |= {"attrs_id": made.attributes, "attrs_conf": made.attribute_scores}
    plain = {"num_boxes": len(made.features), "image_id": name, "img_id": name}
    plain |= {"image_w": SIZE[0], "img_w": SIZE[0], "image_h": SIZE[1], "img_h": SIZE[1]}
    return plain | {key: text64(array) for key, array in arrays.items()}


def write_tsv(
    path: Path, images: Sequence[tuple[str, Made]], order: Sequence[str] = OLDER, header: bool = False
) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, order, delimiter="\t", extrasaction="ignore")
        if header:
            writer.writeheader()
        writer.writerows(columns(name, made) for name, made in images)
    return path


def check(store: FeatureStore, made: Mapping[str, Made], *, dtype: str = "float32", detections: bool = False) -> None:
    assert sorted(store.image_ids) == sorted(made)
    for name, one in made.items():
        rows = store.read(store.index(name))
        np.testing.assert_array_equal(rows.features, one.features.astype(dtype).astype(np.float32))
        np.testing.assert_allclose(rows.boxes, one.boxes / np.array([*SIZE, *SIZE], np.float32), atol=1e-7)
        assert tuple(rows.size) == SIZE
        if detections:
            np.testing.assert_array_equal(rows.labels, one.labels)
            np.testing.assert_array_equal(rows.scores, one.scores)
            np.testing.assert_array_equal(rows.attributes, one.attributes)
            np.testing.assert_array_equal(rows.attribute_scores, one.attribute_scores)


@pytest.mark.parametrize("order", [OLDER, LXMERT], ids=["older", "lxmert"])
@pytest.mark.parametrize("header", [False, True])
def test_tsv_of_both_orders(tmp_path, made, order, header):
    tsv = write_tsv(tmp_path / "a.tsv", list(made.items()), order, header)
    did = convert("bottom-up-tsv", [tsv], tmp_path / "out", dtype="float32", images_per_unit=3, progress=False)
    assert (did.done, did.skipped, did.repeated, did.cut_boxes) == (4, [], 0, 0)
    store = FeatureStore(tmp_path / "out")
    assert store.image_ids == list(made)
    check(store, made, detections=order == LXMERT)
    assert same_extractor(store.record, EXPECTED)
    assert store.record["versions"]["sources"] == [{"file": "a.tsv", "sha256": sha256_of_file(tsv)}]
    one = merge([tmp_path / "out"], tmp_path / "one.h5")
    check(one, made, detections=order == LXMERT)
    assert one.record == store.record


def write_npz(folder: Path, made: Mapping[str, Made], kind: str) -> Path:
    folder.mkdir()
    for name, one in made.items():
        size = {"image_w": SIZE[0], "image_h": SIZE[1]}
        if kind == "vqa":
            path = folder / f"COCO_train2014_{int(name):012d}.jpg.npz"
            np.savez(path, x=one.features.T, bbox=one.boxes, num_bbox=len(one.boxes), **size)
        elif kind == "gqa":
            np.savez(folder / f"{name}.npz", x=one.features, bbox=one.boxes, width=SIZE[0], height=SIZE[1])
        else:
            info = {"image_id": name, "objects_id": one.labels, "objects_conf": one.scores}
            info |= {"attrs_id": one.attributes, "attrs_conf": one.attribute_scores, "num_boxes": len(one.boxes)}
            np.savez_compressed(folder / name, x=one.features, bbox=one.boxes, info=info, **size)
    return folder


@pytest.mark.parametrize(
    ("kind", "form", "extractor"),
    [
        ("openvqa-npz", "vqa", "bottom-up"),
        ("openvqa-npz", "gqa", "gqa-objects"),
        ("py-bottom-up-npz", "info", "bottom-up-pytorch"),
    ],
)
def test_npz_folders(tmp_path, made, kind, form, extractor):
    folder = write_npz(tmp_path / "npz", made, form)
    convert(kind, [folder], tmp_path / "out", dtype="float32", images_per_unit=3, progress=False)
    store = FeatureStore(tmp_path / "out")
    check(store, made, detections=form == "info")
    assert same_extractor(store.record, {**EXPECTED, "name": extractor})
    (source,) = store.record["versions"]["sources"]
    assert (source["file"], source["parts"], len(source["sha256"])) == ("npz", 2, 64)


def test_grids(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "clevr").mkdir()
    x = rng.normal(size=(196, 1024)).astype(np.float32)
    np.savez(tmp_path / "clevr" / "5.npz", x=x)
    convert("openvqa-npz", [tmp_path / "clevr"], tmp_path / "a", dtype="float32", progress=False)
    store = FeatureStore(tmp_path / "a")
    assert same_extractor(store.record, {**EXPECTED, "name": "clevr-grid"})
    rows = store.read(store.index("5"))
    np.testing.assert_array_equal(rows.features, x)
    np.testing.assert_allclose(rows.boxes[15], [1 / 14, 1 / 14, 2 / 14, 2 / 14], atol=1e-7)

    (tmp_path / "pth").mkdir()
    grid = torch.randn(1, 8, 2, 3)
    torch.save(grid, tmp_path / "pth" / "42.pth")
    convert("grid-feats-pth", [tmp_path / "pth"], tmp_path / "b", dtype="float32", progress=False)
    store = FeatureStore(tmp_path / "b")
    rows = store.read(store.index(42))
    np.testing.assert_array_equal(rows.features[4], grid[0, :, 1, 1])
    np.testing.assert_allclose(rows.boxes[4], [1 / 3, 1 / 2, 2 / 3, 1], atol=1e-7)


def test_hengyuans_hdf5(tmp_path):
    made = {str(number): Made(number, 4) for number in (9, 5, 7)}
    path = tmp_path / "train36.hdf5"
    with h5py.File(path, "w") as file:
        file["image_features"] = np.stack([one.features for one in made.values()])
        file["image_bb"] = np.stack([one.boxes for one in made.values()])
        shares = [one.boxes / np.array([*SIZE, *SIZE], np.float32) for one in made.values()]
        file["spatial_features"] = np.stack([np.hstack([s, s[:, 2:] - s[:, :2]]) for s in shares])
    table = {int(name): row for row, name in enumerate(made)}
    (tmp_path / "train36_imgid2idx.pkl").write_bytes(pickle.dumps(table, protocol=2))
    convert("hengyuan-hdf5", [path], tmp_path / "out", dtype="float32", progress=False)
    check(FeatureStore(tmp_path / "out"), made)
    assert FeatureStore(tmp_path / "out").image_ids == ["9", "5", "7"]
    assert same_extractor(FeatureStore(tmp_path / "out").record, EXPECTED)


def test_a_table_without_images(tmp_path):
    with h5py.File(tmp_path / "train36.hdf5", "w") as file:
        for name in ("image_features", "image_bb", "spatial_features"):
            file[name] = np.zeros((0, 36, 4), np.float32)
    (tmp_path / "train36_imgid2idx.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match=r"train36\.hdf5: holds no images"):
        convert("hengyuan-hdf5", [tmp_path / "train36.hdf5"], tmp_path / "out", progress=False)


def flat(made: Mapping[str, Made], name: str) -> np.ndarray:
    return np.concatenate([getattr(one, name) for one in made.values()])


def write_dcn(path: Path, made: Mapping[str, Made]) -> None:
    ends = np.cumsum([len(one.boxes) for one in made.values()])
    with h5py.File(path, "w") as file:
        file["features"], file["boxes"] = flat(made, "features"), flat(made, "boxes")
        file["img_start_idx"], file["img_end_idx"] = ends - [len(one.boxes) for one in made.values()], ends - 1
        file["image_w"], file["image_h"] = np.full(len(made), SIZE[0]), np.full(len(made), SIZE[1])
    table = {int(name): row for row, name in enumerate(made)}
    torch.save(table, path.with_suffix(".pt"), _use_new_zipfile_serialization=False)


def test_bans_and_dcns_hdf5(tmp_path, made):
    ends = np.cumsum([len(one.boxes) for one in made.values()])
    starts = ends - [len(one.boxes) for one in made.values()]
    table = {int(name): row for row, name in enumerate(made)}
    with h5py.File(tmp_path / "trainval.hdf5", "w") as file:
        file["image_features"], file["image_bb"] = flat(made, "features"), flat(made, "boxes")
        shares = flat(made, "boxes") / np.array([*SIZE, *SIZE], np.float32)
        file["spatial_features"] = np.hstack([shares, shares[:, 2:] - shares[:, :2]])
        file["pos_boxes"] = np.stack([starts, ends], axis=1)
    (tmp_path / "trainval_imgid2idx.pkl").write_bytes(pickle.dumps(table))
    convert("hengyuan-hdf5", [tmp_path / "trainval.hdf5"], tmp_path / "a", dtype="float32", progress=False)
    check(FeatureStore(tmp_path / "a"), made)

    write_dcn(tmp_path / "rcnn_trainval.h5", made)
    convert("dcn-hdf5", [tmp_path / "rcnn_trainval.h5"], tmp_path / "b", dtype="float32", progress=False)
    check(FeatureStore(tmp_path / "b"), made)


def mmf_info(one: Made) -> dict[str, Any]:
    probabilities = np.full((len(one.boxes), 1600), 0.0, np.float32)
    probabilities[np.arange(len(one.boxes)), one.labels] = one.scores
    info = {"bbox": one.boxes, "objects": one.labels, "cls_prob": probabilities, "num_boxes": len(one.boxes)}
    return info | {"image_width": SIZE[0], "image_height": SIZE[1]}


def test_mmfs_npy(tmp_path, made):
    folder = tmp_path / "npy"
    folder.mkdir()
    for name, one in made.items():
        np.save(folder / f"COCO_val2014_{int(name):012d}.npy", one.features)
        np.save(folder / f"COCO_val2014_{int(name):012d}_info.npy", mmf_info(one))  # type: ignore[arg-type]
    convert("mmf-npy", [folder], tmp_path / "out", dtype="float32", progress=False)
    store = FeatureStore(tmp_path / "out")
    check(store, made)
    rows = store.read(store.index("3"))
    np.testing.assert_array_equal(rows.labels, made["3"].labels)
    np.testing.assert_array_equal(rows.scores, made["3"].scores)


def test_mmfs_lmdb(tmp_path, made):
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    keys = [f"train2014/COCO_train2014_{int(name):012d}".encode() for name in made]
    with lmdb.open(str(tmp_path / "a.lmdb"), map_size=2**22) as environment, environment.begin(write=True) as writing:
        for key, one in zip(keys, made.values(), strict=True):
            writing.put(key, pickle.dumps({"feature_path": key.decode(), "features": one.features, **mmf_info(one)}))
        writing.put(keys[1], b"\x80\x03cos\nsystem\nX\x02\x00\x00\x00ls\x85R.")
        writing.put(b"keys", pickle.dumps(keys))
    did = convert("mmf-lmdb", [tmp_path / "a.lmdb"], tmp_path / "out", dtype="float32", progress=False)
    (skipped,) = did.skipped
    assert skipped.image_id == "10"
    assert "os.system" in skipped.reason
    del made["10"]
    check(FeatureStore(tmp_path / "out"), made)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_rounding_is_that_of_the_dtype(tmp_path, made, dtype):
    tsv = write_tsv(tmp_path / "a.tsv", list(made.items()))
    convert("bottom-up-tsv", [tsv], tmp_path / "out", dtype=dtype, progress=False)
    store = FeatureStore(tmp_path / "out")
    if dtype == "float16":
        return check(store, made, dtype=dtype)
    for name, one in made.items():
        error = np.abs(store.read(store.index(name)).features - one.features)
        assert (error <= np.abs(one.features).max(axis=1, keepdims=True) / 253).all()
        assert error.max() > 0


def damaged(tmp_path: Path, made: dict[str, Made], *, change: dict[int, Any], **options: Any) -> Any:
    """Convert a TSV of which some lines were changed; returns what was skipped, by image id."""
    lines = write_tsv(tmp_path / "a.tsv", list(made.items())).read_bytes().splitlines(keepends=True)
    for number, edit in change.items():
        lines[number] = edit(lines[number])
    (tmp_path / "a.tsv").write_bytes(b"".join(lines))
    did = convert("bottom-up-tsv", [tmp_path / "a.tsv"], tmp_path / "out", dtype="float32", progress=False, **options)
    return did


def replaced(column: str, value: Any) -> Any:
    def edit(line: bytes) -> bytes:
        fields = line.rstrip(b"\r\n").split(b"\t")
        fields[OLDER.index(column)] = value(fields[OLDER.index(column)]) if callable(value) else value
        return b"\t".join(fields) + b"\r\n"

    return edit


def changed(column: str, index: int, value: float) -> Any:
    def edit(field: bytes) -> bytes:
        array = np.frombuffer(base64.b64decode(field), np.float32).copy()
        array[index] = value
        return base64.b64encode(array.tobytes())

    return replaced(column, edit)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda line: line[:-20] + b"\n", "features is not base64, or cut off|is no multiple|not whole numbers"),
        (lambda line: line[: line.rindex(b"\t")] + b"\n", "5 columns, not 6 .* it is cut off"),
        (replaced("features", lambda field: b"!" + field[1:]), "features is not base64"),
        (replaced("features", lambda field: field[:-8]), "no multiple of its 5 boxes|not whole numbers"),
        (replaced("features", base64.b64encode(np.ones((5, 4), np.float32).tobytes())), "width 4, .* have 6"),
        (replaced("num_boxes", b"x"), "num_boxes is 'x'"),
        (replaced("num_boxes", b"4"), "boxes|multiple"),
        (replaced("image_w", b"0"), "image_w is '0', not a whole number from 1"),
        (changed("features", 3, np.nan), "1 of 30 values of its features are NaN or infinite"),
        (changed("boxes", 6, np.inf), r"box 1 is \("),
        (changed("boxes", 6, 700.0), r"box 1, .* outside of its image of 640 x 480 pixels by 60"),
        (changed("boxes", 0, 650.0), "box 0 is inverted"),
        (replaced("image_w", b"99999999999"), "has 99999999999 x 480 pixels"),
    ],
)
def test_a_bad_record_is_named_and_the_others_kept(tmp_path, made, capfd, edit, reason):
    did = damaged(tmp_path, made, change={2: edit})
    (skipped,) = did.skipped
    assert (skipped.image_id, skipped.path) == ("17", f"{tmp_path}/a.tsv, line 3")
    assert re.search(reason, skipped.reason)
    assert f"{tmp_path}/a.tsv, line 3, image '17'" in capfd.readouterr().err
    store = FeatureStore(tmp_path / "out")
    assert [entry.image_id for entry in store.skipped] == ["17"]
    del made["17"]
    check(store, made)


@pytest.mark.parametrize("keep", [3, 6], ids=["too few columns", "as many as in the other order"])
def test_a_damaged_first_line_does_not_hide_the_order(tmp_path, made, keep):
    tsv = write_tsv(tmp_path / "a.tsv", list(made.items()), LXMERT)
    first, *others = tsv.read_bytes().splitlines(keepends=True)
    tsv.write_bytes(b"\t".join(first.split(b"\t")[:keep]) + b"\n" + b"".join(others))
    did = convert("bottom-up-tsv", [tsv], tmp_path / "out", dtype="float32", progress=False)
    assert [entry.path for entry in did.skipped] == [f"{tsv}, line 1"]
    del made["3"]
    check(FeatureStore(tmp_path / "out"), made, detections=True)


def test_a_box_a_pixel_outside_is_cut_and_counted(tmp_path, made):
    did = damaged(tmp_path, made, change={2: changed("boxes", 6, 640.5), 3: changed("boxes", 0, -1.0)})
    assert (did.skipped, did.cut_boxes) == ([], 2)
    assert FeatureStore(tmp_path / "out").record["versions"]["cut_boxes"] == 2
    rows = FeatureStore(tmp_path / "out").read(2)
    assert rows.boxes[1, 2] == 1
    did = convert("bottom-up-tsv", [tmp_path / "a.tsv"], tmp_path / "out", dtype="float32", progress=False)
    assert (did.found_done, did.cut_boxes) == (4, 2)


def test_boxes_far_outside_are_cut_on_request(tmp_path, made):
    did = damaged(tmp_path, made, change={2: changed("boxes", 6, 700.0)}, clip_boxes=True)
    assert (did.done, did.cut_boxes) == (4, 1)


def test_repeated_images(tmp_path, made):
    images = list(made.items())
    one = write_tsv(tmp_path / "one.tsv", images[:3])
    two = write_tsv(tmp_path / "two.tsv", images[2:])
    did = convert("bottom-up-tsv", [one, two], tmp_path / "out", dtype="float32", progress=False)
    assert (did.done, did.repeated, did.skipped) == (4, 1, [])
    check(FeatureStore(tmp_path / "out"), made)

    other = write_tsv(tmp_path / "other.tsv", [("17", Made(99, 5))])
    with pytest.raises(ValueError, match=r"other.tsv, line 1: image '17' comes again, .*one.tsv, line 3"):
        convert("bottom-up-tsv", [one, other], tmp_path / "never", progress=False)
    assert not (tmp_path / "never").exists()


def test_of_repeated_images_the_sound_one_is_taken(tmp_path, made):
    images = list(made.items())
    tsv = write_tsv(tmp_path / "a.tsv", [*images, images[1]])
    lines = tsv.read_bytes().splitlines(keepends=True)
    tsv.write_bytes(b"".join([lines[0], lines[1][:40] + b"\n", *lines[2:]]))
    did = convert("bottom-up-tsv", [tsv], tmp_path / "out", dtype="float32", progress=False)
    assert [entry.path for entry in did.skipped] == [f"{tsv}, line 2"]
    check(FeatureStore(tmp_path / "out"), made)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "line 1 has 1 columns"),
        (b"1,2,3\n", r"line 1 has 1 columns; a bottom-up TSV has 6"),
        (b"image_id\tnum_boxes\n", "lacks the column image_w"),
        (b"\t".join(name.encode() for name in OLDER) + b"\n", "holds no images"),
        (b"1\t2\t3\t1\tAAA\tAAA\n", "line 1: .*features is not base64"),
    ],
)
def test_what_is_no_tsv_is_refused_and_nothing_written(tmp_path, content, reason):
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        convert("bottom-up-tsv", [tmp_path / "a.tsv"], tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]


def test_pickles_that_run_code_are_refused(tmp_path, made):
    folder = write_npz(tmp_path / "npz", made, "info")
    one = made["10"]
    info = np.array([None], object)
    np.savez(folder / "10.npz", x=one.features, bbox=one.boxes, image_w=640, image_h=480, info=info)

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    info[0] = Evil()
    np.savez(folder / "10.npz", x=one.features, bbox=one.boxes, image_w=640, image_h=480, info=info)
    did = convert("py-bottom-up-npz", [folder], tmp_path / "out", dtype="float32", progress=False)
    (skipped,) = did.skipped
    assert skipped.image_id == "10"
    assert "system" in skipped.reason
    torch.save(Evil(), tmp_path / "1.pth")
    with pytest.raises(ValueError, match="holds more than a tensor"):
        convert("grid-feats-pth", [tmp_path / "1.pth"], tmp_path / "b", progress=False)
    assert not (tmp_path / "ran").exists()


def test_ids_by_a_pattern(tmp_path):
    (tmp_path / "val").mkdir()
    np.savez(tmp_path / "val" / "42.npz", x=np.ones((4, 3), np.float32))
    convert("openvqa-npz", [tmp_path / "val"], tmp_path / "out", ids="CLEVR_val_{:06d}", progress=False)
    assert FeatureStore(tmp_path / "out").image_ids == ["CLEVR_val_000042"]
    (tmp_path / "val" / "42.npz").rename(tmp_path / "val" / "photo.npz")
    with pytest.raises(ValueError, match=r"photo\.npz: its name 'photo' ends in no number .* none of them can be used"):
        convert("openvqa-npz", [tmp_path / "val"], tmp_path / "never", ids="trailing-number", progress=False)
    for wrong in ("number", "{0.__class__}", "{:999999d}", "{}{}"):
        with pytest.raises(ValueError, match="must be auto, name, trailing-number, or a text"):
            convert("openvqa-npz", [tmp_path / "val"], tmp_path / "never", ids=wrong, progress=False)


def test_a_lmdb_that_was_cut_off(tmp_path):
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    with lmdb.open(str(tmp_path / "a"), map_size=2**22) as environment, environment.begin(write=True) as writing:
        for number in range(20):
            writing.put(str(number).encode(), pickle.dumps({"features": np.ones((4, 512), np.float32)}))
    with (tmp_path / "a" / "data.mdb").open("r+b") as file:
        file.truncate(40_000)
    with pytest.raises(ValueError, match="LMDB is cut off"):
        convert("mmf-lmdb", [tmp_path / "a"], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["bottom-up-tsv", "py-bottom-up-npz", "mmf-npy", "dcn-hdf5", "grid-feats-pth"])
def test_damage_anywhere_is_said_and_never_a_crash(tmp_path, made, kind):
    """Random bytes changed or cut away: records are skipped or the file refused, and a refused one leaves nothing."""
    rng = np.random.default_rng(0)
    source = tmp_path / "source"
    if kind == "py-bottom-up-npz":
        write_npz(source, made, "info")
    else:
        source.mkdir()
    if kind == "bottom-up-tsv":
        write_tsv(source / "a.tsv", list(made.items()), LXMERT)
    if kind == "mmf-npy":
        np.save(source / "3.npy", made["3"].features)
        np.save(source / "3_info.npy", mmf_info(made["3"]))  # type: ignore[arg-type]
    if kind == "dcn-hdf5":
        write_dcn(source / "a.h5", made)
    if kind == "grid-feats-pth":
        torch.save(torch.randn(1, 8, 2, 3), source / "42.pth")
    whole = {path: path.read_bytes() for path in source.iterdir()}
    for _ in range(15):
        path = sorted(whole)[rng.integers(len(whole))]
        content = np.frombuffer(whole[path], np.uint8).copy()
        if rng.random() < 0.3:
            content = content[: rng.integers(len(content))]
        else:
            content[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(content.tobytes())
        try:
            given = source / "a.h5" if kind == "dcn-hdf5" else source / "a.tsv" if kind == "bottom-up-tsv" else source
            convert(kind, [given], tmp_path / "out", dtype="float32", progress=False)
            assert np.isfinite(FeatureStore(tmp_path / "out").gather(np.arange(1)).features).all()
            shutil.rmtree(tmp_path / "out")
        except ValueError:
            assert not (tmp_path / "out").exists()
        path.write_bytes(whole[path])


def test_a_kill_loses_at_most_one_shard(tmp_path):
    """kill -9 while it writes; the same command goes on, and the files are those of one go, byte for byte."""
    made = {str(number): Made(number, 36, dim=512) for number in range(120)}
    tsv = write_tsv(tmp_path / "a.tsv", list(made.items()))
    call = "import sys; from coattn.features.convert import convert; "
    call += f"convert('bottom-up-tsv', [{str(tsv)!r}], sys.argv[1], images_per_unit=2, progress=False)"
    whole, out = tmp_path / "whole", tmp_path / "out"
    convert("bottom-up-tsv", [tsv], whole, images_per_unit=2, progress=False)
    process = subprocess.Popen([sys.executable, "-c", call, out])
    deadline = time.monotonic() + 60
    while len(list(out.glob("shard-*.h5"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.h5")}
    assert 3 <= len(finished) < 60
    with pytest.raises(ValueError, match="run the same command again"):
        FeatureStore(out)
    (out / ".shard-00059.h5.left.partial").write_bytes(b"left by the killed process")
    did = convert("bottom-up-tsv", [tsv], out, images_per_unit=2, progress=False)
    assert did.found_done == 2 * len(finished)
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == finished
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert all(path.read_bytes() == (out / path.name).read_bytes() for path in whole.iterdir())


def test_another_plan_is_refused(tmp_path, made):
    tsv = write_tsv(tmp_path / "a.tsv", list(made.items()))
    convert("bottom-up-tsv", [tsv], tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="was begun with dtype float16, now it is float32"):
        convert("bottom-up-tsv", [tsv], tmp_path / "out", dtype="float32", progress=False)
    made["10"] = Made(77, 1)
    write_tsv(tmp_path / "a.tsv", list(made.items()))
    with pytest.raises(ValueError, match="its source has changed"):
        convert("bottom-up-tsv", [tsv], tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match='name "mine" there, "bottom-up" here'):
        convert("bottom-up-tsv", [tsv], tmp_path / "out", extractor="mine", progress=False)


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path):
    tsv = write_tsv(tmp_path / "a.tsv", [(str(number), Made(number, 36, dim=512)) for number in range(8)])
    code = f"""
import resource
from coattn.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
raise SystemExit(main(["convert", "bottom-up-tsv", {str(tsv)!r}, {str(tmp_path / "out")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{tmp_path}/out/shard-00000.h5: File too large" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json"]


def test_where_it_may_not_write_or_read_is_named(tmp_path, made, capsys):
    tsv = write_tsv(tmp_path / "a.tsv", list(made.items()))
    (tmp_path / "file").touch()
    assert main(["convert", "bottom-up-tsv", str(tsv), str(tmp_path / "file" / "out")]) == 2
    assert f"{tmp_path}/file/out: Not a directory" in capsys.readouterr().err
    assert main(["convert", "mmf-npy", str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert f"{tmp_path}/none: No such file" in capsys.readouterr().err
    if os.geteuid() == 0:
        return  # the administrator may read and write everywhere
    tsv.chmod(0)
    assert main(["convert", "bottom-up-tsv", str(tsv), str(tmp_path / "out")]) == 2
    assert f"{tsv}: Permission denied" in capsys.readouterr().err


def test_the_command(tmp_path, made, capsys):
    tsv = write_tsv(
        tmp_path / "a.tsv", [(f"COCO_train2014_{int(name):012d}", one) for name, one in made.items()], LXMERT
    )
    assert main(["convert", "bottom-up", str(tsv), str(tmp_path / "out"), "--dtype", "int8"]) == 0
    assert capsys.readouterr().out.endswith("out: 4 images\n")
    assert FeatureStore(tmp_path / "out").image_ids == list(made)
    assert main(["convert", "tsv", str(tsv), str(tmp_path / "names"), "--ids", "name"]) == 0
    assert FeatureStore(tmp_path / "names").image_ids[0] == "COCO_train2014_000000000003"
    lines = tsv.read_bytes().splitlines(keepends=True)
    tsv.write_bytes(b"".join([*lines[:3], lines[3][:100]]))
    capsys.readouterr()
    assert main(["convert", "bottom-up-tsv", str(tsv), str(tmp_path / "cut")]) == 1
    assert "cut: 3 images, 1 skipped" in capsys.readouterr().out
    assert main(["convert", "bottom-up-tsv", str(tmp_path / "none.tsv"), str(tmp_path / "cut")]) == 2
    assert "none.tsv: No such file" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "cut"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["extractor"]["versions"]["sources"][0]["file"] == "a.tsv"


def test_the_real_sample_is_exact(tmp_path, shared_data):
    """Against a decoding of its own: float32 equal, float16 rounded once, int8 within the stated bound."""
    path = shared_data / "region_features" / "train2014_obj36.tsv"
    for dtype in ("float32", "float16", "int8"):
        convert("bottom-up-tsv", [path], tmp_path / dtype, dtype=dtype, progress=False)
    stores = {dtype: FeatureStore(tmp_path / dtype) for dtype in ("float32", "float16", "int8")}
    worst = 0.0
    with path.open() as file:
        for number, line in enumerate(file):
            fields = dict(zip(LXMERT, line.rstrip("\n").split("\t"), strict=True))
            features = np.frombuffer(base64.decodebytes(fields["features"].encode()), "<f4").reshape(36, 2048)
            boxes = np.frombuffer(base64.decodebytes(fields["boxes"].encode()), "<f4").reshape(36, 4)
            size = [int(fields["img_w"]), int(fields["img_h"])]
            rows = stores["float32"].read(number)
            assert stores["float32"].image_ids[number] == str(int(fields["img_id"][-12:]))
            np.testing.assert_array_equal(rows.features, features)
            np.testing.assert_allclose(rows.boxes * (size * 2), boxes, rtol=1e-6, atol=1e-4)
            assert rows.size.tolist() == size
            np.testing.assert_array_equal(
                rows.labels, np.frombuffer(base64.decodebytes(fields["objects_id"].encode()), "<i8")
            )
            np.testing.assert_array_equal(
                rows.attribute_scores, np.frombuffer(base64.decodebytes(fields["attrs_conf"].encode()), "<f4")
            )
            np.testing.assert_array_equal(stores["float16"].read(number).features, features.astype(np.float16))
            error = np.abs(stores["int8"].read(number).features - features)
            worst = max(worst, float((error / features.max(axis=1, keepdims=True)).max()))
    assert number == 9
    assert 1 / 260 < worst <= 1 / 253
