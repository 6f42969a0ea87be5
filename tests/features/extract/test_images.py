from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coattn.features.extract.images import find_images, image_size, load_image

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


@pytest.mark.parametrize(
    ("kind", "at_least", "size"),
    [
        ("JPEG", (240, 320), (320, 240)),
        ("JPEG", (224, 224), (320, 240)),
        ("JPEG", (241, 10), (640, 480)),
        ("JPEG", (10, 161), (320, 240)),
        ("JPEG", (1, 1), (80, 60)),
        ("JPEG", (1000, 1000), (640, 480)),
        ("PNG", (224, 224), (640, 480)),
    ],
)
def test_jpeg_files_are_decoded_at_the_smallest_size_that_suffices(kind, at_least, size):
    image = load_image(encoded(Image.new("RGB", (640, 480), RED), kind), at_least=at_least)
    assert image.size == size
    assert image.mode == "RGB"


def test_a_turned_jpeg_file_is_decoded_at_a_size_that_suffices_upright(tmp_path):
    image = Image.new("RGB", (640, 480), RED)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert image_size(tmp_path / "turned.jpg") == load_image(tmp_path / "turned.jpg").size == (480, 640)
    assert load_image(tmp_path / "turned.jpg", at_least=(320, 240)).size == (240, 320)
    assert load_image(tmp_path / "turned.jpg", at_least=(240, 320)).size == (480, 640)


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
    # Dark gray in each mode; 1 bit has only black.
    image = Image.new("RGB", (2, 2), (0, 0, 0) if mode == "1" else (40, 40, 40))
    # Compressed, since Pillow before 13 cannot read the uncompressed YCbCr TIFF that it writes.
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
        ("text.jpg", b"this is no picture", r"not an image in one of the formats JPEG, PNG.*begins with b'this is no"),
        ("lfs.jpg", b"version https://git-lfs.github.com/spec/v1\noid", "begins with b'version https://git-lfs"),
        ("empty.png", b"", "not an image in one of the formats .*the file is empty"),
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


def png(samples: np.ndarray) -> bytes:
    """A PNG of (h, w, channels) uint16; Pillow writes 16 bits in gray only."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_of_colour_and_alpha(channels):
    samples = np.random.default_rng(0).integers(0, 256, (3, 4, channels), dtype=np.uint16) * 257
    if channels != 3:
        samples[..., -1] = 65535
    expected = samples[..., :1].repeat(3, axis=2) if channels == 2 else samples[..., :3]
    np.testing.assert_array_equal(pixels(png(samples)), expected // 257)


def test_a_given_image_is_left_as_it_is():
    image = Image.new("RGB", (4, 2), RED)
    image.getexif()[0x0112] = 6
    assert load_image(image).size == (2, 4)
    assert image.size == (4, 2)
    assert load_image(Image.new("RGB", (4, 2))) is not image


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_hundred_megapixels_are_read(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(encoded(Image.new("1", (10_000, 10_000)), "PNG"))
    told = []
    assert load_image(path, tell=told.append).size == (10_000, 10_000)
    assert told == [f"{path}: 10000 x 10000 pixels, an unusually large image; it was read"]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "MPO"])
def test_several_pictures_are_told(tmp_path, kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    told = []
    for name, others in (("one", []), ("three", frames[1:])):
        (tmp_path / name).write_bytes(encoded(frames[0], kind, save_all=True, append_images=others))
        assert np.abs(np.asarray(load_image(tmp_path / name, tell=told.append)).astype(int) - RED).max() <= 20
    several = f"{tmp_path / 'three'}: holds several pictures (animation, pages); the first was used"
    assert told == ([] if kind == "MPO" else [several])


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"7": "a.png", "7": "b.png"}', "a.png and .*b.png would both be image '7'"),
        ('{"": "a.png"}', "a.png: its image id is ''; it must not be empty"),
        ('{"7": "\\udcff.png"}', r'images.json: half of a surrogate pair.* after \[\["7", "; correct it'),
        ('{"7": "a\\u0000.png"}', r"images.json: the path of image '7' is 'a.*NUL"),
    ],
)
def test_ids_that_cannot_be_are_refused(tmp_path, text, message):
    (tmp_path / "images.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        find_images([tmp_path / "images.json"])


def test_nothing_in_a_folder_is_passed_over(folder):
    (folder / "gone.png").symlink_to("nowhere.png")
    assert "gone" in find_images([folder])
    if os.geteuid() != 0:  # the administrator may read everywhere
        (folder / "a").chmod(0)
        with pytest.raises(PermissionError, match="/a'"):
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


def test_twelve_bits_are_said_and_can_be_stretched(tmp_path):
    ramp = np.tile(np.linspace(0, 4095, 256).astype(np.uint16), (4, 1))
    Image.fromarray(ramp).save(tmp_path / "scan.png")
    told: list[str] = []
    assert np.asarray(load_image(tmp_path / "scan.png", tell=told.append)).max() == 15
    (line,) = told
    assert "scan.png: uses a small part of its 16-bit range (at most 4095 of 65535)" in line
    assert "--window 0-4095" in line
    stretched = np.asarray(load_image(tmp_path / "scan.png", window=(0, 4095), tell=told.append))
    np.testing.assert_array_equal(stretched[0, :, 0], np.arange(256))
    np.testing.assert_array_equal(np.asarray(load_image(ramp, window=(0, 4095))), stretched)
    assert len(told) == 1


def test_eight_bit_values_in_an_integer_image_are_not_black():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(pixels(Image.fromarray(values).convert("I"))[..., 0], values)


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: is a named pipe"):
        load_image(tmp_path / "a.png")
