"""Image files: find them, name them, and read them into plain RGB."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from coattn._internal.files import IMAGE_SUFFIXES, files_below, read_bytes, read_json, require_regular
from coattn._internal.kinds import kind_of

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

_SHOWN_BYTES = 40

ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
Window = tuple[int, int]  # values of a 16-bit image that become black and white

DARK = "uses a small part of its 16-bit range"
_DARK_BELOW = 2**13  # 12-bit scanners reach 4095


def load_image(
    source: ImageSource,
    *,
    window: Window | None = None,
    at_least: Sequence[int] | None = None,
    tell: Callable[[str], object] | None = None,
) -> Image.Image:
    """Read an image as a viewer would show it, in RGB.

    The image is turned upright as EXIF says. Transparent pixels are laid over white. Gray, palette, CMYK and 16-bit
    pixels are converted. Of an animation or a multi-page file the first picture is read. The limit is 178,956,970
    pixels (Pillow's; it warns from half of that on).

    Args:
        source: a file (JPEG, PNG, WebP, BMP, GIF or TIFF), the bytes of one, a PIL image, or an array (h, w),
            (h, w, 1), (h, w, 3) or (h, w, 4) of uint8, uint16, or floats in [0, 1].
        window: values of 16-bit pixels that become black and white; None: 0 and 65535. Scanners often use 12 bits, that
            is 0 and 4095. 8-bit images are not changed.
        at_least: height and width that suffice. A JPEG file is then decoded at the smallest of 1, 1/2, 1/4 and 1/8 of
            its size that is not below them; libjpeg computes that from fewer coefficients of each block.
        tell: called with one line about a file of several pictures, a file so large that Pillow warns of it, and a
            16-bit image that comes out nearly black because it has no value above 8191.

    Raises:
        ValueError: not such an image, damaged, or so large that it may be a decompression bomb; names the file.
        OSError: the file cannot be opened.
    """
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source, window).copy(), window)
    if isinstance(source, Image.Image):
        return _to_rgb(ImageOps.exif_transpose(source), window)  # always a copy
    if isinstance(source, bytes):
        name, data = "image", source
    else:
        name, data = os.fspath(source), read_bytes(source)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if at_least is not None:
                height, width = reversed(at_least) if _is_turned(image) else at_least
                image.draft(None, (width, height))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # copies of large images cost memory
            if tell is not None and window is None and _is_deep(image):
                _tell_if_dark(name, int(np.asarray(image).max()), tell)
            found = _to_rgb(image, window)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name}: too many pixels, it may be a decompression bomb; shrink it first ({error})"
        ) from None
    except Image.UnidentifiedImageError:
        begins = f"it begins with {data[:_SHOWN_BYTES]!r}" if data else "the file is empty"
        raise ValueError(f"{name}: not an image in one of the formats {', '.join(FORMATS)} ({begins})") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ValueError(f"{name}: cannot be read as an image ({type(error).__name__}: {error})") from None
    if tell is not None and _has_several(data):
        tell(f"{name}: holds several pictures (animation, pages); the first was used")
    if tell is not None and found.width * found.height > (Image.MAX_IMAGE_PIXELS or float("inf")):
        tell(f"{name}: {found.width} x {found.height} pixels, an unusually large image; it was read")
    return found


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of a readable image file, upright, from its header."""
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        return (height, width) if _is_turned(image) else (width, height)


def _is_turned(image: Image.Image) -> bool:
    """Whether EXIF says that width and height are exchanged."""
    return image.getexif().get(ExifTags.Base.Orientation, 1) >= 5


def _has_several(data: bytes) -> bool:
    """Whether a file holds several pictures. Those of cameras (MPO) show the same and do not count."""
    try:
        with Image.open(io.BytesIO(data), formats=("GIF", "PNG", "TIFF", "WEBP")) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # another format, or only the further pictures are damaged
        return False


def _is_deep(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _tell_if_dark(name: str, largest: int, tell: Callable[[str], object]) -> None:
    if 255 < largest < _DARK_BELOW:
        bits = 2 ** largest.bit_length() - 1
        tell(f"{name}: {DARK} (at most {largest} of 65535) and comes out nearly black; --window 0-{bits} stretches it")


def _to_rgb(image: Image.Image, window: Window | None) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floats of unknown range; convert it to 8 or 16 bits")
    if _is_deep(image):  # Pillow would clip 16 bits to white
        values = np.asarray(image)
        # Pillow's mode I often holds 8-bit values; a 16-bit image without a value above 255 would be black.
        is_8_bit = window is None and values.max(initial=0) <= 255
        image = Image.fromarray(values.clip(0).astype(np.uint8) if is_8_bit else _to_8_bits(values, window))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bits(values: np.ndarray, window: Window | None) -> np.ndarray:
    if window is None:
        return (values // 257).clip(0, 255).astype(np.uint8)
    low, high = window
    return np.rint((values.astype(np.float32) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def _from_array(array: np.ndarray, window: Window | None) -> Image.Image:
    good_shape = array.size > 0 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)))
    if array.dtype == np.uint16:
        array = _to_8_bits(array, window)
    elif array.dtype.kind == "f" and good_shape and array.min() >= 0 and array.max() <= 1:
        array = np.rint(array * 255).astype(np.uint8)
    if not good_shape or array.dtype != np.uint8:
        raise ValueError(
            f"image array of shape {array.shape} and type {array.dtype}; it must be (h, w), (h, w, 1), (h, w, 3) or "
            "(h, w, 4) of uint8, uint16, or floats in [0, 1]"
        )
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def find_images(sources: Sequence[str | os.PathLike[str]], *, id_from: str = "path") -> dict[str, Path]:
    """List images by id.

    Args:
        sources: JSON files that map image id to path (relative to the JSON's folder), image files, and folders, which
            are searched for image files at any depth.
        id_from: rule for the ids of images in folders and of single files. "path" takes the path within the folder, or
            the name of the file, without suffix. "trailing-number" takes the number at the end of that, so that
            COCO_train2014_000000458752.jpg is image 458752.

    Returns:
        Image id to path, in the order of the sources; folders sorted by path.

    Raises:
        ValueError: two images with one id, a name without a number or not in UTF-8, an empty id, no image at all, or a
            folder that `coattn prepare` made, whose images.json names the images.
        OSError: a source does not exist, or a folder may not be read.
    """
    found: dict[str, Path] = {}
    for source in map(Path, sources):
        for name, path in _list_source(source):
            image_id = name if source.suffix == ".json" or id_from == "path" else _trailing_number(name, path)
            _check_id(image_id, path)
            if image_id in found:
                raise ValueError(f"{found[image_id]} and {path} would both be image {image_id!r}; rename one of them")
            found[image_id] = path
    if not found:
        kinds = [f"{source} ({kind_of(source).partition(' ')[2]})" for source in sources]
        raise ValueError(f"no images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {', '.join(kinds)}")
    return found


def _list_source(source: Path) -> list[tuple[str, Path]]:
    if source.is_dir():
        if (source / "images.json").is_file():
            raise ValueError(f"{source}: a prepared data set names its images in a file; give {source / 'images.json'}")
        paths = [path for path in files_below(source) if path.suffix.lower() in IMAGE_SUFFIXES]
        return [(path.relative_to(source).with_suffix("").as_posix(), path) for path in paths]
    if source.suffix == ".json":
        pairs = read_json(source, pairs_hook=tuple)  # a dict would keep only the last of two images with one id
        if not isinstance(pairs, tuple) or not all(isinstance(path, str) for _, path in pairs):
            raise ValueError(f"{source}: not a list of images; it must be one JSON object of image id to path")
        for image_id, path in pairs:
            if "\0" in path:
                raise ValueError(
                    f"{source}: the path of image {image_id!r} is {path!r}; it must not hold a NUL character"
                )
        return [(image_id, source.parent / path) for image_id, path in pairs]
    require_regular(source)
    if (kind := kind_of(source)) not in ("an image", "an empty file", "another kind of file"):
        raise ValueError(f"{source}: is {kind}, not an image or a folder of images")
    return [(source.stem, source)]


def _check_id(image_id: str, path: Path) -> None:
    try:
        f"{image_id}{path}".encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise ValueError(f"{shown}: its name is not UTF-8, as image ids must be; rename it") from None
    if not image_id or "\0" in image_id:
        raise ValueError(f"{path}: its image id is {image_id!r}; it must not be empty or hold a NUL character")


def _trailing_number(name: str, path: Path) -> str:
    match = re.search(r"\d+$", name)
    if match is None:
        raise ValueError(f"{path}: its name ends in no number to take as image id")
    return str(int(match.group()))
