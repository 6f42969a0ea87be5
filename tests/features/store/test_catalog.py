"""The index of a folder of shards: what it saves, and that it is refused where the folder is another one."""

from __future__ import annotations

import json
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from folders import write_folder, write_shard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coattn.features.store import reader
from coattn.features.store.catalog import INDEX
from coattn.features.store.layout import Part
from coattn.features.store.manifest import Manifest
from coattn.features.store.merge import merge
from coattn.features.store.reader import FeatureStore, index_folder


def test_a_folder_reads_the_same_with_and_without_its_index(tmp_path: Path) -> None:
    indexed = FeatureStore(write_folder(tmp_path / "a", 18))
    plain = FeatureStore(write_folder(tmp_path / "b", 18, index=False))
    assert (tmp_path / "a" / INDEX).exists()
    assert not (tmp_path / "b" / INDEX).exists()
    assert [part.columns for part in indexed.parts] == [part.columns for part in plain.parts]
    for name in ("record", "image_ids", "skipped", "dim", "dtype", "has_boxes"):
        assert getattr(indexed, name) == getattr(plain, name), name
    order = np.random.default_rng(0).integers(0, 18, 50)
    for read in ("read_flat", "read_padded"):
        assert all(map(np.array_equal, getattr(indexed, read)(order), getattr(plain, read)(order)))
    assert indexed.read_flat(np.array([7])).features[:, 0].tolist() == [7, 7, 7]
    assert pickle.loads(pickle.dumps(indexed)).read(7).features.tolist() == plain.read(7).features.tolist()
    assert [store.index("13") for store in (indexed, plain)] == [13, 13]
    assert merge([tmp_path / "a"], tmp_path / "a.h5").image_ids == plain.image_ids
    assert not (tmp_path / "a.assets").exists()


def test_opening_opens_no_shard_and_reading_only_those_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "a", 40)
    opened: list[str] = []
    whole = Part.open
    monkeypatch.setattr(Part, "open", lambda part: opened.append(part.path.name) or whole(part))
    monkeypatch.setattr(reader, "read_part", None)
    store = FeatureStore(tmp_path / "a")
    assert opened == []
    store.read_padded(np.array([1, 2, 39, 3]))
    store.read_padded(np.array([2, 39]))
    assert opened == ["shard-00000.h5", "shard-00009.h5"]


def test_few_maps_are_kept_where_few_files_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "a", 40)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (6, 6))
    store = FeatureStore(tmp_path / "a")
    for _ in range(2):
        rows = store.read_flat(np.arange(40))
        np.testing.assert_array_equal(rows.features[:, 0], np.repeat(np.arange(40), rows.lengths))
        assert len(store._open) == 3


@pytest.mark.parametrize("change", ["features", "ids"])
def test_a_shard_of_other_content_is_refused_when_it_is_read(tmp_path: Path, change: str) -> None:
    folder = write_folder(tmp_path / "a", 12)
    shard = folder / "shard-00001.h5"
    size = shard.stat().st_size
    store = FeatureStore(folder)
    if change == "features":
        write_shard(shard, ["4", "5", "6", "7"], value=0.75)
    else:
        write_shard(shard, ["4", "5", "6", "3"])
    assert shard.stat().st_size == size
    for opened in (store, FeatureStore(folder)):
        opened.read_flat(np.array([0, 11]))
        with pytest.raises(ValueError, match=r"shard-00001\.h5: is not the file that was here when the store was"):
            opened.read_flat(np.array([0, 5]))


def test_another_folder_than_that_of_the_index_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", 12)
    shard, manifest = folder / "shard-00002.h5", folder / "manifest.json"
    content, text = shard.read_bytes(), manifest.read_text()
    shard.write_bytes(content[:-1])
    sizes = f"has {len(content) - 1} bytes, but had {len(content)} when"
    with pytest.raises(ValueError, match=rf"shard-00002\.h5: {sizes}"):
        FeatureStore(folder)
    shard.unlink()
    with pytest.raises(ValueError, match=r"a: incomplete, 1 of 3 shards are missing"):
        FeatureStore(folder)
    shard.write_bytes(content)
    manifest.write_text(text.replace('"11.jpg"', '"12.jpg"'))
    with pytest.raises(ValueError, match=r"index\.npz: not the index of this folder \(it belongs to another manifest"):
        FeatureStore(folder)
    manifest.write_text(text)
    assert len(FeatureStore(folder)) == 12


def test_an_index_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", 12)
    with np.load(folder / INDEX) as file:
        arrays = dict(file)
    for name, wrong in (
        ("lengths", -arrays["lengths"]),
        ("lengths", arrays["lengths"][1:]),
        ("lengths", arrays["lengths"] * 10**6),
        ("positions", arrays["positions"] + 1),
        ("id_offsets", arrays["id_offsets"][::-1]),
        ("columns", arrays["columns"][:, 1:]),
        ("about", np.frombuffer(b"[]", np.uint8)),
        ("ids", np.array([["a"]], object)),
    ):
        np.savez(folder / INDEX, **{**arrays, name: wrong})
        with pytest.raises(ValueError, match=r"index\.npz: not the index of this folder \(.*; delete it to read"):
            FeatureStore(folder)
    np.savez_compressed(folder / INDEX, **arrays)
    with pytest.raises(ValueError, match="it is compressed"):
        FeatureStore(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("flipped") / "a", 12)


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_of_the_index_changes_nothing_or_is_refused(folder: Path, position: float, bit: int) -> None:
    whole = (folder / INDEX).read_bytes()
    content = bytearray(whole)
    content[int(position * len(content))] ^= 1 << bit
    (folder / INDEX).write_bytes(content)
    try:
        rows = FeatureStore(folder).read_flat(np.arange(12))
    except ValueError as error:
        message = str(error)
    else:
        message = str(folder)
        np.testing.assert_array_equal(rows.features[:, 0], np.repeat(np.arange(12), np.arange(12) % 4))
    finally:
        (folder / INDEX).write_bytes(whole)
    assert str(folder) in message


def test_only_a_finished_folder_of_sound_shards_gets_an_index(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", 12)
    manifest, whole = Manifest.read(folder), (folder / INDEX).read_bytes()
    shard = folder / "shard-00002.h5"
    for content in (shard.read_bytes()[:100], None):
        (folder / INDEX).unlink(missing_ok=True)
        if content is None:
            shard.unlink()
        else:
            shard.write_bytes(content)
        index_folder(folder, manifest)
        assert not (folder / INDEX).exists()
    write_shard(shard, ["8", "9", "10", "11"])
    index_folder(folder, manifest)
    assert (folder / INDEX).read_bytes() == whole


MEASURE = """
import json, sys, time
import numpy as np
from coattn.features.store.reader import FeatureStore

def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

begun = time.perf_counter()
store = FeatureStore(sys.argv[1])
seconds, peak = time.perf_counter() - begun, memory("VmHWM")
chance = np.random.default_rng(0)
anonymous = []
for _ in range(10):
    for _ in range(100):
        images = chance.integers(0, len(store), 100)
        rows = store.read_padded(images)
        assert (rows.features[rows.lengths > 0, 0, 0] == images[rows.lengths > 0]).all()
    anonymous.append(memory("RssAnon"))
print(json.dumps([len(store), seconds, peak, anonymous]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")
def test_a_million_images_open_in_200_mb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)  # 3,907 shards
    folder = write_folder(tmp_path / "a", 1_000_000, per_shard=256)
    found = subprocess.run([sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=True)
    number, seconds, peak, anonymous = json.loads(found.stdout)
    print(f"opened in {seconds:.2f} s and {peak:.0f} MB")
    assert number == 1_000_000
    assert peak < 200
    assert anonymous[-1] - anonymous[0] < 5
