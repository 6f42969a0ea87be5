"""The configurations that come with the package: `configs/` of the repository."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from coattn._internal.hints import did_you_mean


def packaged_configs() -> dict[str, Path]:
    """The packaged configurations by name: easy_vqa, compare/easy_vqa_mcan, published/mcan_small and so on."""
    with as_file(files("coattn") / "configs") as folder:
        return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob("**/*.yaml"))}


def find_config(name: str) -> Path:
    """A packaged configuration by its name.

    Raises:
        ValueError: There is none of this name.
    """
    known = packaged_configs()
    if (found := known.get(name.removeprefix("configs/").removesuffix(".yaml"))) is None:
        raise ValueError(f"there is no configuration {name!r}{did_you_mean(name, known)}")
    return found
