"""Other people's feature files, each layout by itself: what they hold comes out, and damage is said."""

from __future__ import annotations

import os
import pickle
import shutil
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from feature_files import EXPECTED, SIZE, Made, check, flat, made_images, mmf_info, write_dcn, write_npz, write_tsv

from coattn.features.convert.formats.tsv import LXMERT
from coattn.features.convert.run import convert
from coattn.features.store.provenance import same_extractor
from coattn.features.store.reader import FeatureStore


@pytest.fixture
def made() -> dict[str, Made]:
    return made_images()


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


def test_a_lmdb_whose_keys_are_no_list(tmp_path):
    lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")
    with lmdb.open(str(tmp_path / "a"), map_size=2**22) as environment, environment.begin(write=True) as writing:
        writing.put(b"keys", pickle.dumps(7))
    with pytest.raises(ValueError, match="the value under 'keys' is no list of keys"):
        convert("mmf-lmdb", [tmp_path / "a"], tmp_path / "out", progress=False)


@pytest.mark.parametrize("name", ["1", "9"])
def test_records_that_are_something_else_are_left_out(tmp_path, name):
    """The first record, which decides about the width, or a later one."""
    dense = torch.arange(24.0).reshape(1, 3, 2, 4)
    tensors = {"2": dense, "3": dense + 1, name: dense.to_sparse()}
    for folder in ("grids", "npz"):
        (tmp_path / folder).mkdir()
    for key, tensor in tensors.items():
        torch.save(tensor, tmp_path / "grids" / f"{key}.pth")
    did = convert("grid-feats-pth", [tmp_path / "grids"], tmp_path / "a", progress=False)
    assert (did.done, [entry.image_id for entry in did.skipped]) == (2, [name])

    for key in ("2", "3"):
        np.savez(tmp_path / "npz" / f"{key}.npz", x=np.ones((4, 3), np.float32))
    np.savez(tmp_path / "npz" / f"{name}.npz", x=np.ones((2, 3), np.float32), bbox=np.ones((2, 1)), width=9, height=9)
    did = convert("openvqa-npz", [tmp_path / "npz"], tmp_path / "boxes", progress=False)
    assert (did.done, [entry.reason for entry in did.skipped]) == (2, ["its boxes are rows of 1 numbers, not 4"])
    for wrong in (np.float32(1), np.array([{"x": 1}], object), np.array([[1, None]], object)):
        np.savez(tmp_path / "npz" / f"{name}.npz", x=wrong)
        out = tmp_path / f"b{wrong.dtype}{wrong.shape}"
        did = convert("openvqa-npz", [tmp_path / "npz"], out, progress=False)
        assert (did.done, [entry.image_id for entry in did.skipped]) == (2, [name])


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


def test_pickles_that_run_code_are_refused(tmp_path, made):
    folder = write_npz(tmp_path / "npz", made, "info")
    one = made["10"]

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    info = np.array([Evil()], object)
    np.savez(folder / "10.npz", x=one.features, bbox=one.boxes, image_w=640, image_h=480, info=info)
    did = convert("py-bottom-up-npz", [folder], tmp_path / "out", dtype="float32", progress=False)
    (skipped,) = did.skipped
    assert skipped.image_id == "10"
    assert "system" in skipped.reason
    torch.save(Evil(), tmp_path / "1.pth")
    with pytest.raises(ValueError, match="holds more than a tensor"):
        convert("grid-feats-pth", [tmp_path / "1.pth"], tmp_path / "b", progress=False)
    assert not (tmp_path / "ran").exists()


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
            assert np.isfinite(FeatureStore(tmp_path / "out").read_flat(np.arange(1)).features).all()
            shutil.rmtree(tmp_path / "out")
        except ValueError:
            assert not (tmp_path / "out").exists()
        path.write_bytes(whole[path])
