"""A conversion of any layout: rounding, repeated images, ids, kills, full disks, and the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from feature_files import Made, check, made_images, write_tsv

from coattn.cli import main
from coattn.features.convert.formats.base import id_rule
from coattn.features.convert.formats.tsv import LXMERT
from coattn.features.convert.run import convert
from coattn.features.store.reader import FeatureStore


@pytest.fixture
def made() -> dict[str, Made]:
    return made_images()


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


@pytest.mark.parametrize("name", ["COCO_val2014_000000000042", "COCO_val2014_000000000042.jpg", "42"])
def test_names_of_coco_become_numbers(name):
    assert id_rule("auto")(name) == "42"


def test_a_kill_loses_at_most_one_shard(tmp_path):
    """kill -9 while it writes; the same command goes on, and the files are those of one go, byte for byte."""
    made = {str(number): Made(number, 36, dim=512) for number in range(120)}
    tsv = write_tsv(tmp_path / "a.tsv", list(made.items()))
    call = "import sys; from coattn.features.convert.run import convert; "
    call += f"convert('bottom-up-tsv', [{str(tsv)!r}], sys.argv[1], images_per_unit=2, progress=False)"
    whole, out = tmp_path / "whole", tmp_path / "out"
    convert("bottom-up-tsv", [tsv], whole, images_per_unit=2, progress=False)
    process = subprocess.Popen([sys.executable, "-c", call, out])
    deadline = time.monotonic() + 300
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
