from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from coattn.features.extract.extractors.build import build_extractor
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.features.extract.run import extract
from coattn.features.store.catalog import INDEX
from coattn.features.store.merge import merge
from coattn.features.store.reader import FeatureStore

KILLED_RUN = """
import os, signal, sys, time
from pathlib import Path
from coattn.features.extract.extractors.descriptor import Descriptor
from coattn.features.extract.run import extract
from coattn.features.extract.images import find_images

class Killed(Descriptor):
    calls = 0
    def describe(self, pixels):
        Killed.calls += 1
        if Killed.calls == int(sys.argv[3]):
            while len(list(Path(sys.argv[2]).glob("shard-*.h5"))) < (Killed.calls - 1) // 2:
                time.sleep(0.01)  # they are written in the background
            os.kill(os.getpid(), signal.SIGKILL)
        return super().describe(pixels)

extract(find_images([sys.argv[1]]), sys.argv[2], Killed(), images_per_unit=4, batch_size=2)
"""


@pytest.fixture
def photos(tmp_path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return {f"{i}": folder / f"{i}.png" for i in range(10)}


def run(images: dict[str, Path], out: Path, **options):
    extractor = options.pop("extractor", None) or Descriptor()
    return extract(images, out, extractor, images_per_unit=4, batch_size=2, progress=False, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_store_comes_out(photos, tmp_path):
    report = run(photos, tmp_path / "out", dtype="float32")
    assert (report.done, report.found_done, report.skipped) == (10, 0, [])
    store = FeatureStore(tmp_path / "out")
    assert store.image_ids == list(photos)
    assert len(store.parts) == 3
    assert store.sizes[7].tolist() == [30, 27]
    assert build_extractor(store.record).record == store.record
    (expected,) = Descriptor()([Image.open(photos["7"])])
    rows = store.read(store.index(7))
    np.testing.assert_array_equal(rows.features, expected.features)
    np.testing.assert_array_equal(rows.boxes, expected.boxes)
    assert store.asset("extractor.safetensors") is None


@pytest.mark.parametrize("call", [1, 4, 5])
def test_killed_and_continued_is_the_same_bytes(photos, tmp_path, call):
    run(photos, tmp_path / "whole")
    command = [sys.executable, "-c", KILLED_RUN, str(tmp_path / "photos"), str(tmp_path / "out"), str(call)]
    done = subprocess.run(command, capture_output=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    shards = len(list((tmp_path / "out").glob("shard-*.h5")))
    assert shards == (call - 1) // 2
    with pytest.raises(ValueError, match=f"{3 - shards} of 3 shards are missing .* run the same command"):
        FeatureStore(tmp_path / "out")
    (tmp_path / "out" / ".shard-00002.h5.abc.partial").write_bytes(b"half a shard")
    report = run(photos, tmp_path / "out")
    assert report.found_done == 4 * shards
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_batches_computed_at_once_come_in_order(photos, tmp_path):
    first = np.asarray(Image.open(photos["0"]).resize((64, 64), Image.Resampling.BILINEAR))
    second_is_done = threading.Event()

    class Parallel(Descriptor):
        parallel = True
        shares: ClassVar = set()

        def describe(self, pixels):
            Parallel.shares.add(torch.get_num_threads())
            if np.array_equal(pixels[0], first):
                assert second_is_done.wait(timeout=300)
            else:
                second_is_done.set()
            return super().describe(pixels)

    run(photos, tmp_path / "whole")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(photos, tmp_path / "out", extractor=Parallel())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert Parallel.shares == {1}
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_error_of_writing_stops_and_leaves_the_whole_shards(photos, tmp_path):
    class Sick(Descriptor):
        calls = 0

        def describe(self, pixels):
            Sick.calls += 1
            found = super().describe(pixels)
            if Sick.calls == 3:
                found[1].features[0, 0] = np.nan
            return found

    with pytest.raises(ValueError, match=r"shard-00001\.h5: image '5' has features that are NaN"):
        run(photos, tmp_path / "out", extractor=Sick())
    assert contents(tmp_path / "out").keys() == {"manifest.json", "shard-00000.h5"}


def test_processes_share_the_work(photos, tmp_path):
    run(photos, tmp_path / "whole")
    reports = [run(photos, tmp_path / "out", rank=rank, world_size=2) for rank in (1, 0)]
    assert [report.done for report in reports] == [4, 6]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_bad_images_are_left_out_and_tried_again(photos, tmp_path, capsys):
    whole = photos["5"].read_bytes()
    photos["5"].write_bytes(b"no picture")
    photos["8"].unlink()
    report = run(photos, tmp_path / "out")
    assert report.done == 8
    assert [entry.image_id for entry in report.skipped] == ["5", "8"]
    assert "not an image" in report.skipped[0].reason
    assert report.skipped[1].reason == "No such file or directory"
    assert str(photos["5"]) in capsys.readouterr().err
    store = FeatureStore(tmp_path / "out")
    assert len(store) == 8
    assert store.skipped == report.skipped
    with pytest.raises(ValueError, match=r"image '5' .* could not be read: not an image"):
        store.index("5")

    again = run(photos, tmp_path / "out")
    assert (again.found_done, again.skipped) == (8, report.skipped)
    photos["5"].write_bytes(whole)
    assert [entry.image_id for entry in run(photos, tmp_path / "out").skipped] == ["8"]
    assert "5" in FeatureStore(tmp_path / "out")
    FeatureStore(tmp_path / "out")


def test_what_was_done_with_unusual_images_is_said(tmp_path, capsys, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    animation, large = tmp_path / "a.gif", tmp_path / "b.png"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    frames[0].save(animation, save_all=True, append_images=frames[1:])
    Image.new("RGB", (12, 10)).save(large)
    report = run({"a": animation, "b": large}, tmp_path / "out")
    assert (report.done, report.skipped) == (2, [])
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if str(animation) in line] == [
        f"{animation}: holds several pictures (animation, pages); the first was used"
    ]
    assert [line for line in lines if str(large) in line] == [
        f"{large}: 12 x 10 pixels, an unusually large image; it was read"
    ]
    assert not [warning for warning in recwarn if issubclass(warning.category, Image.DecompressionBombWarning)]


def test_a_damaged_shard_is_made_again(photos, tmp_path):
    run(photos, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "shard-00001.h5").write_bytes(before["shard-00001.h5"][:3000])
    with pytest.raises(ValueError, match=r"shard-00001\.h5: has 3000 bytes, but had \d+ when"):
        FeatureStore(tmp_path / "out")
    assert run(photos, tmp_path / "out").found_done == 6
    assert contents(tmp_path / "out") == before


def test_flips_are_stored_beside(photos, tmp_path):
    run(photos, tmp_path / "out", flips=True, dtype="float32")
    store = FeatureStore(tmp_path / "out")
    assert store.image_ids[:4] == ["0", "0#flip", "1", "1#flip"]
    plain, mirrored = store.read(2), store.read(3)
    np.testing.assert_array_equal(plain.size, mirrored.size)
    np.testing.assert_array_equal(plain.boxes, mirrored.boxes)
    back = mirrored.features.reshape(4, 4, 56)[:, ::-1].reshape(16, 56)
    np.testing.assert_allclose(back[:, :39], plain.features[:, :39], atol=1e-6)
    assert np.abs(mirrored.features - plain.features).max() > 0.1


def test_the_batch_size_changes_nothing(photos, tmp_path):
    for size in (1, 3):
        extract(photos, tmp_path / f"{size}", Descriptor(), batch_size=size, dtype="float32", progress=False)
    one, three = FeatureStore(tmp_path / "1"), FeatureStore(tmp_path / "3")
    np.testing.assert_array_equal(one.read_flat(np.arange(10)).features, three.read_flat(np.arange(10)).features)


def test_other_settings_are_refused(photos, tmp_path):
    run(photos, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=r"settings.grid \[2, 2\] there, \[4, 4\] here"):
        run(photos, tmp_path / "out", extractor=Descriptor(grid=(2, 2)))
    with pytest.raises(ValueError, match="was begun with dtype float16, now it is int8"):
        run(photos, tmp_path / "out", dtype="int8")
    with pytest.raises(ValueError, match="was begun with flips False, now it is True"):
        run(photos, tmp_path / "out", flips=True)
    assert contents(tmp_path / "out") == before


def test_other_images_are_refused(photos, tmp_path):
    run(photos, tmp_path / "out")
    with pytest.raises(ValueError, match=r"other images \(10 then, 11 now; 'new' was None, is \.\./photos/0\.png"):
        run({**photos, "new": photos["0"]}, tmp_path / "out")
    with pytest.raises(ValueError, match=r"'0' was \.\./photos/0\.png, is \.\./photos/1\.png"):
        run({**photos, "0": photos["1"]}, tmp_path / "out")
    with pytest.raises(ValueError, match="another order"):
        run(dict(reversed(photos.items())), tmp_path / "out")


def test_an_image_replaced_since_is_noticed(photos, tmp_path):
    run(photos, tmp_path / "out")
    photos["5"].write_bytes(photos["9"].read_bytes())
    with pytest.raises(ValueError, match=r"shard-00001\.h5: image files have changed .* delete this file"):
        run(photos, tmp_path / "out")
    (tmp_path / "out" / "shard-00001.h5").unlink()
    assert run(photos, tmp_path / "out").found_done == 6


def test_a_folder_of_something_else_is_left_alone(photos, tmp_path):
    with pytest.raises(ValueError, match="is not empty and holds no features"):
        run(photos, tmp_path / "photos")
    assert len(list((tmp_path / "photos").iterdir())) == 10
    with pytest.raises(ValueError, match="are written into a folder"):
        run(photos, tmp_path / "out.h5")


def test_shards_of_another_folder_are_refused(photos, tmp_path):
    run(photos, tmp_path / "out")
    run(dict(reversed(photos.items())), tmp_path / "reversed")
    run(photos, tmp_path / "coarse", extractor=Descriptor(grid=(2, 2)))
    shard = tmp_path / "out" / "shard-00000.h5"
    shard.write_bytes((tmp_path / "reversed" / "shard-00000.h5").read_bytes())
    with pytest.raises(ValueError, match=r"shard-00000\.h5: is not the file that was here"):
        FeatureStore(tmp_path / "out").read(0)
    (tmp_path / "out" / INDEX).unlink()
    with pytest.raises(ValueError, match=r"shard-00000\.h5: does not hold what manifest\.json plans"):
        FeatureStore(tmp_path / "out")
    shard.write_bytes((tmp_path / "coarse" / "shard-00000.h5").read_bytes())
    with pytest.raises(ValueError, match=r"another extractor than manifest\.json"):
        FeatureStore(tmp_path / "out")


def test_merged_is_equal(photos, tmp_path):
    run(photos, tmp_path / "out", dtype="int8")
    (tmp_path / "out" / "text_encoder").mkdir()
    (tmp_path / "out" / "text_encoder" / "config.json").write_text("{}")
    (tmp_path / "out" / "extractor.safetensors").write_bytes(b"1")
    shards = FeatureStore(tmp_path / "out")
    one = merge([tmp_path / "out"], tmp_path / "one.h5")
    assert (one.image_ids, one.record, one.dtype) == (shards.image_ids, shards.record, "int8")
    order = np.array([9, 0, 5])
    for here, there in zip(one.read_flat(order), shards.read_flat(order), strict=True):
        np.testing.assert_array_equal(here, there)
    assert one.asset("extractor.safetensors").read_bytes() == b"1"
    assert (one.asset("text_encoder") / "config.json").exists()
    assert sorted(path.name for path in (tmp_path / "one.assets").iterdir()) == [
        "extractor.safetensors",
        "text_encoder",
    ]
    twice = merge([tmp_path / "one.h5"], tmp_path / "two.h5")
    assert twice.asset("text_encoder").is_dir()
    assert (tmp_path / "two.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()


def test_stores_that_do_not_fit_are_not_merged(photos, tmp_path):
    halves = [dict(list(photos.items())[:5]), dict(list(photos.items())[5:])]
    for name, images, options in (
        ("a", halves[0], {}),
        ("b", halves[1], {}),
        ("same", photos, {}),
        ("int8", halves[1], {"dtype": "int8"}),
        ("coarse", halves[1], {"extractor": Descriptor(grid=(2, 2))}),
    ):
        run(images, tmp_path / name, **options)
    out = tmp_path / "out.h5"
    for other, message in (
        ("same", "both hold image '0'"),
        ("int8", "only stores of one kind"),
        ("coarse", "another extr"),
    ):
        with pytest.raises(ValueError, match=message):
            merge([tmp_path / "a", tmp_path / other], out)
        assert not out.exists()
    with pytest.raises(ValueError, match=r"must end in \.h5"):
        merge([tmp_path / "a"], tmp_path / "out")
    assert merge([tmp_path / "a", tmp_path / "b"], out).image_ids == list(photos)
    with pytest.raises(ValueError, match="exists"):
        merge([tmp_path / "a"], out)


def test_a_folder_that_is_removed_meanwhile_is_an_error(photos, tmp_path):
    class Removing(Descriptor):
        def describe(self, pixels):
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            return super().describe(pixels)

    with pytest.raises((ValueError, OSError), match=r"removed or changed|No such file"):
        run(photos, tmp_path / "out", extractor=Removing())
