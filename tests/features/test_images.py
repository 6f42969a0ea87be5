from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coattn.features.images import find_images, load_image

RED = (255, 0, 0)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source: object) -> np.ndarray:
    image = load_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def gradient() -> np.ndarray:
    return np.arange(6, dtype=np.uint16).reshape(2, 3) * 13107  # 0 ... 65535


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG", "MPO"])
def test_formats(kind):
    got = pixels(encoded(Image.new("RGB", (5, 4), (200, 10, 30)), kind, quality=95))
    assert got.shape == (4, 5, 3)
    assert np.abs(got.astype(int) - (200, 10, 30)).max() <= 3


def test_exif_orientation():
    image = Image.new("RGB", (4, 2), RED)
    image.putpixel((0, 0), (0, 0, 255))
    exif = image.getexif()
    exif[0x0112] = 6  # turn a quarter to the right
    got = load_image(encoded(image, "PNG", exif=exif))
    assert got.size == (2, 4)
    assert got.getpixel((1, 0)) == (0, 0, 255)


def test_transparency_is_white():
    clear = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([255, 0, 0])
    assert pixels(encoded(clear, "PNG")).tolist() == [[[255, 255, 255]]]
    assert pixels(encoded(half, "PNG"))[0, 0].tolist() == [255, 127, 127]
    assert pixels(encoded(Image.new("LA", (1, 1), (0, 0)), "PNG")).tolist() == [[[255, 255, 255]]]
    assert pixels(encoded(palette, "PNG")).tolist() == [[[255, 0, 0]]]
    assert pixels(encoded(palette, "PNG", transparency=0)).tolist() == [[[255, 255, 255]]]
    assert pixels(encoded(palette, "GIF", transparency=0)).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr"])
def test_other_colour_spaces(mode):
    # A dark grey in each; 1 bit knows black only.
    image = Image.new("RGB", (2, 2), (0, 0, 0) if mode == "1" else (40, 40, 40))
    # Compressed, since Pillow before 13 cannot read an uncompressed YCbCr TIFF of its own.
    got = pixels(encoded(image.convert(mode), "TIFF", compression="tiff_lzw")).astype(int)
    assert np.ptp(got, axis=2).max() <= 2
    assert got.max() < 60


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_range(kind):
    expected = [[0, 51, 102], [153, 204, 255]]
    assert pixels(encoded(Image.fromarray(gradient()), kind))[..., 0].tolist() == expected
    assert pixels(gradient())[..., 2].tolist() == expected


def test_thirty_two_bits_are_taken_as_sixteen():
    assert pixels(encoded(Image.fromarray(gradient().astype(np.int32)), "TIFF"))[1, 2].tolist() == [255, 255, 255]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (2, 2), RED), Image.new("RGB", (2, 2), (0, 255, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]


def test_arrays_and_pil_images():
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels(array), array)
    np.testing.assert_array_equal(pixels(array / 255), array)
    np.testing.assert_array_equal(pixels(array[..., :1])[..., 2], array[..., 0])
    np.testing.assert_array_equal(pixels(Image.fromarray(array)), array)
    assert pixels(np.zeros((2, 2, 4), np.uint8)).tolist() == [[[255] * 3] * 2] * 2


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 4, 4, 3), np.uint8),
        np.zeros((3, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.full((2, 2), 7.5),
    ],
)
def test_arrays_that_are_no_image(array):
    with pytest.raises(ValueError, match=r"image array of shape .* it must be"):
        load_image(array)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("text.jpg", b"this is no picture", "not an image in one of the formats JPEG, PNG"),
        ("empty.png", b"", "not an image in one of the formats"),
        ("cut.jpg", encoded(Image.effect_noise((64, 64), 50), "JPEG")[:900], "cannot be read as an image"),
        ("cut.png", encoded(Image.effect_noise((64, 64), 50), "PNG")[:900], "cannot be read as an image"),
        ("foreign.ppm", encoded(Image.new("RGB", (2, 2)), "PPM"), "not an image in one of the formats"),
        ("float.tif", encoded(Image.new("F", (2, 2), 0.5), "TIFF"), "floats of unknown range"),
    ],
)
def test_bad_files_are_named(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as error:
        load_image(path)
    assert str(path) in str(error.value)


def test_a_decompression_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(encoded(Image.new("1", (20_000, 20_000)), "PNG"))
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"bomb\.png: too many pixels"):
        load_image(path)


def test_a_missing_file_stays_a_system_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "none.jpg")


# --- finding images ---


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a/COCO_train2014_000000458752.jpg", "a/x.JPEG", "notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def test_a_folder_names_its_images_by_path(folder):
    found = find_images([folder])
    assert list(found) == ["a/COCO_train2014_000000458752", "a/x", "b"]
    assert found["a/x"] == folder / "a" / "x.JPEG"


def test_files_are_named_by_their_name(folder):
    assert find_images([folder / "b.png", folder / "a" / "x.JPEG"]).keys() == {"b", "x"}


def test_a_trailing_number_is_the_id(folder):
    assert list(find_images([folder / "a" / "COCO_train2014_000000458752.jpg"], id_from="trailing-number")) == [
        "458752"
    ]
    with pytest.raises(ValueError, match=r"x\.JPEG: its name ends in no number"):
        find_images([folder], id_from="trailing-number")


def test_a_json_maps_ids_to_paths_beside_it(folder):
    listing = folder / "images.json"
    listing.write_text(json.dumps({"train/1": "a/x.JPEG", "7": str(folder / "b.png")}))
    found = find_images([listing], id_from="trailing-number")
    assert found == {"train/1": folder / "a" / "x.JPEG", "7": folder / "b.png"}


@pytest.mark.parametrize("value", [["a.png"], {"1": 2}, "a.png"])
def test_another_json_is_refused(tmp_path, value):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"x\.json: .* one JSON object of image id to path"):
        find_images([path])


def test_two_images_of_one_id_are_refused(folder):
    (folder / "b.jpg").touch()
    with pytest.raises(ValueError, match=r"b\.jpg and .*b\.png would both be image 'b'"):
        find_images([folder])


def test_no_image_at_all_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no images"):
        find_images([tmp_path])
    with pytest.raises(FileNotFoundError):
        find_images([tmp_path / "none"])


def test_a_prepared_folder_is_pointed_to_its_list(tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text("{}")
    with pytest.raises(ValueError, match=r"give .*images\.json"):
        find_images([tmp_path])
