from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coattn.cli import main
from coattn.features.store.reader import FeatureStore


@pytest.fixture
def photos(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a/1.png", "a/2.jpg", "b.webp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def test_a_folder_of_images(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["extract", str(photos), str(out)]) == 0
    assert FeatureStore(out).image_ids == ["a/1", "a/2", "b"]
    captured = capsys.readouterr()
    assert f"{out}: 3 images, 0 skipped" in captured.out
    assert main(["extract", str(photos), str(out)]) == 0
    assert "3 of them before" in capsys.readouterr().out


def test_an_images_json_and_all_settings(photos, tmp_path):
    listing = photos / "images.json"
    listing.write_text(json.dumps({"train/7": "a/2.jpg"}))
    options = ["--grid", "2x3", "--size", "20x30", "--flips", "--dtype", "int8", "--batch-size", "1", "--workers", "1"]
    assert main(["extract", str(listing), str(tmp_path / "out"), *options]) == 0
    store = FeatureStore(tmp_path / "out")
    assert store.image_ids == ["train/7", "train/7#flip"]
    assert store.record["settings"] == {"grid": [2, 3], "size": [20, 30]}
    assert store.dtype == "int8"


def test_objects(tmp_path):
    Image.new("RGB", (20, 20), "white").save(tmp_path / "empty.png")
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[5:9, 5:9] = pixels[12:15, 2:8] = 255
    Image.fromarray(pixels).save(tmp_path / "two.png")
    options = ["--extractor", "objects", "--levels", "2", "--max-objects", "7"]
    assert main(["extract", str(tmp_path), str(tmp_path / "out"), *options]) == 0
    store = FeatureStore(tmp_path / "out")
    assert store.lengths.tolist() == [1, 2]
    assert store.dim == 13
    assert store.record["name"] == "objects"
    assert store.record["settings"] == {"levels": 2, "min_area": 0.001, "max_objects": 7, "max_side": 256}


def test_a_network(photos, tmp_path):
    pytest.importorskip("torchvision")
    options = [
        "--extractor",
        "torchvision",
        "--model",
        "shufflenet_v2_x0_5",
        "--weights",
        "none",
        "--size",
        "64x96",
        "--grid",
        "2x2",
        "--global",
    ]
    assert main(["extract", str(photos), str(tmp_path / "out"), *options, "--device", "cpu"]) == 0
    store = FeatureStore(tmp_path / "out")
    assert store.lengths.tolist() == [5, 5, 5]
    again = ["--weights", str(store.asset("extractor.safetensors")), "--device", "cpu"]
    command = [part for part in options if part not in ("--weights", "none")]
    assert main(["extract", str(photos), str(tmp_path / "out"), *command, *again]) == 0


def test_unreadable_images_are_named_and_give_status_1(photos, tmp_path, capsys):
    (photos / "a" / "3.jpg").write_text("no picture")
    assert main(["extract", str(photos), str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "3 images, 1 skipped" in captured.out
    assert f"skipped image 'a/3' ({photos / 'a' / '3.jpg'}): not an image" in captured.err
    assert len(FeatureStore(tmp_path / "out")) == 3


def test_a_full_disk_is_named_and_leaves_nothing_half_written(photos, tmp_path):
    code = f"""
import resource
from coattn.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
raise SystemExit(main(["extract", {str(photos)!r}, {str(tmp_path / "out")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{tmp_path}/out/shard-00000.h5: File too large" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_trailing_numbers(tmp_path):
    path = tmp_path / "COCO_val2014_000000000042.png"
    Image.new("RGB", (8, 8)).save(path)
    assert main(["extract", str(path), str(tmp_path / "out"), "--id-from", "trailing-number"]) == 0
    assert 42 in FeatureStore(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--model", "resnet18"],
            "--model needs --extractor efficientnet-lite or torchvision or detector or transformers",
        ),
        (["--tf-same-padding"], "--tf-same-padding needs --extractor torchvision"),
        (["--global"], "--global needs --extractor efficientnet-lite or torchvision or transformers"),
        (["--min-area", "0.1"], "--min-area needs --extractor objects; descriptor has no such setting"),
        (
            ["--extractor", "objects", "--grid", "2x2"],
            "--grid needs --extractor descriptor or patches",
        ),
        (["--extractor", "objects", "--min-area", "2"], "min_area in [0, 1)"),
        (["--extractor", "torchvision", "--weights", "none"], "needs --model NAME and --weights"),
        (["--extractor", "torchvision", "--model", "resnet18"], "needs --model NAME and --weights"),
        (["--extractor", "torchvision", "--model", "resnet18", "--weights", "gone.pth"], "gone.pth: No such file"),
        (["--grid", "3x3", "--size", "64x64"], "size 64x64 is not a multiple of grid 3x3"),
    ],
)
def test_settings_that_cannot_be(photos, tmp_path, capsys, options, message):
    assert main(["extract", str(photos), str(tmp_path / "out"), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--grid", "4"], ["--size", "0x4"], ["--batch-size", "0"], ["--dtype", "float64"]])
def test_values_that_cannot_be(photos, tmp_path, capsys, options):
    assert main(["extract", str(photos), str(tmp_path / "out"), *options]) == 2
    assert options[0] in capsys.readouterr().err


def test_a_forgotten_out_does_no_harm(photos, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "more" / "x.png")
    assert main(["extract", str(photos), str(tmp_path / "more")]) == 2
    assert "is not empty and holds no features" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "more").iterdir()] == ["x.png"]


def test_interrupted_it_says_so_and_can_go_on(photos, tmp_path):
    """Ctrl-C while reading: one line, status 130, nothing half-written."""
    start = "import sys, time; import coattn.features.extract.run as run; "
    start += "run.load_image = lambda *_, **options: time.sleep(2); "  # reading takes long
    start += "from coattn.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "extract", str(photos), str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out" / "manifest.json").exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json"]
