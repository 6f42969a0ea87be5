"""Models of the Hugging Face Hub, under the name `hf://user/name@revision`.

A repository on the Hub holds a model directory. Only the files of a model directory are read or uploaded: no Python
file and no pickle. A model that is on this machine already is used without a request to the Hub.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from coattn._internal.files import require
from coattn.serialization.files import CONFIG, FILES, TEXT_ENCODER, WEIGHTS

PREFIX = "hf://"
_NAME = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>(?!.*\.\.)\w[\w./-]*))?")
_TEXT_ENCODER_SUFFIXES = (".json", ".txt", ".md", ".model", ".safetensors")
_LARGEST_TEXT = 64 * 2**20  # bytes; the vocabularies of the largest published models have a tenth of that


def is_allowed(file: str) -> bool:
    """Whether a file of a repository, named by its path there, is one of a model directory."""
    path = PurePosixPath(file)
    if len(path.parts) == 2 and path.parts[0] == TEXT_ENCODER:
        return path.suffix in _TEXT_ENCODER_SUFFIXES or path.name == "LICENSE"
    return file in FILES - {TEXT_ENCODER}


def local_model(name: str | os.PathLike[str], *, allow_download: bool = False) -> Path:
    """Find the folder of a model: the given folder, or that of a name on the Hub, downloaded if need be and allowed.

    A model of the Hub is kept in the cache of `huggingface_hub`. Once it is there, no newer state of the same revision
    is looked up; name the newer commit to get it.

    Args:
        name: a folder, or "hf://user/name" with or without "@revision", which is a branch, a tag or a commit.
        allow_download: download the model if it is not on this machine. Otherwise there is no network access at all.

    Raises:
        ValueError: the name has another form; the model is not on this machine, nor on the Hub; it is not a model of
            coattn; a file is too large.
        OSError: the files cannot be written.
        ModuleNotFoundError: the extra `hub` is not installed.
    """
    if not str(name).startswith(PREFIX):
        return Path(name)
    found = _NAME.fullmatch(str(name))
    if found is None:
        raise ValueError(f"{name}: a model of the Hub is named hf://user/name or hf://user/name@revision")
    repo, revision = found["repo"], found["revision"] or "main"
    with readable_errors(str(name)):
        cached = require("huggingface_hub", "hub").try_to_load_from_cache(repo, WEIGHTS, revision=revision)
        if isinstance(cached, str):
            return Path(cached).parent
        if not allow_download:
            raise ValueError(
                f"{name}: not on this machine; allow the download with --allow-download, or in Python "
                "with allow_download=True"
            )
        return _download(str(name), repo, revision)


def _download(name: str, repo: str, revision: str) -> Path:
    """Download the files of a model directory into the cache, and return their folder there."""
    from coattn.serialization.config import read_config  # imports torch, which an exported model does without

    hub = require("huggingface_hub", "hub")
    describe = partial(hub.HfApi().model_info, repo, revision=revision, files_metadata=True)
    try:
        info = describe(token=False)  # a public model is read without the user's token
    except require("huggingface_hub.errors", "hub").RepositoryNotFoundError:
        info = describe()
    sizes = {file.rfilename: file.size for file in info.siblings if is_allowed(file.rfilename)}
    _check_files(name, sizes, Path(require("huggingface_hub.constants", "hub").HF_HUB_CACHE))

    fetch = partial(hub.hf_hub_download, repo, token=None if info.private or info.gated else False)
    folder = Path(fetch(CONFIG, revision=info.sha)).parent
    read_config(folder)  # refuses another library's model before its weights are downloaded
    # The weights come last: a folder of the cache that has them is complete.
    for file in [*sorted(sizes.keys() - {CONFIG, WEIGHTS}), WEIGHTS]:
        fetch(file, revision=info.sha)
    fetch(CONFIG, revision=revision)  # records in the cache which commit the revision is, for later use offline
    return folder


def _check_files(name: str, sizes: Mapping[str, int | None], cache: Path) -> None:
    """Raise ValueError unless the files make up a model directory and fit on the disk."""
    for file in (CONFIG, WEIGHTS):
        if file not in sizes:
            raise ValueError(f"{name}: not a model of coattn: the repository has no {file}")
    for file, size in sizes.items():
        if size is None:
            raise ValueError(f"{name}: the Hub does not tell the size of {file}; nothing is downloaded")
        if size > _LARGEST_TEXT and not file.endswith(".safetensors"):
            raise ValueError(
                f"{name}: {file} has {size / 1e6:.0f} MB, more than a model of coattn needs; nothing is downloaded"
            )
    total = sum(size or 0 for size in sizes.values())
    free = shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.exists())).free
    if total > free:
        raise ValueError(f"{name}: {total / 1e6:.0f} MB to download, but {cache} has only {free / 1e6:.0f} MB left")


@contextmanager
def readable_errors(name: str) -> Iterator[None]:
    """Turn the errors of `huggingface_hub` into a ValueError of one sentence, which never holds a token or a URL."""
    errors = require("huggingface_hub.errors", "hub")
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise ValueError(f"{name}: the Hub is switched off by HF_HUB_OFFLINE=1; unset it") from None
    except errors.HFValidationError as error:
        raise ValueError(f"{name}: not a name on the Hub: {str(error).splitlines()[0]}") from None
    except errors.GatedRepoError:
        raise ValueError(
            f"{name}: its owner has to grant you access; ask for it on the Hub and run hf auth login"
        ) from None
    except errors.RepositoryNotFoundError:
        raise ValueError(f"{name}: the Hub has no such model; a private one needs hf auth login") from None
    except errors.RevisionNotFoundError:
        raise ValueError(f"{name}: the model has no such revision") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; your token may not write there: hf auth login" if status in (401, 403) else ""
        raise ValueError(f"{name}: the Hub answered with status {status}{hint}") from None
    except (errors.HTTPError, errors.LocalEntryNotFoundError, ConnectionError):
        raise ValueError(f"{name}: the Hub cannot be reached; is the network up?") from None
