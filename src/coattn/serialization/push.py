"""Upload a model directory to the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from coattn._internal.files import files_below, require
from coattn.serialization.card import hub_metric, update_metadata
from coattn.serialization.directory import load_directory
from coattn.serialization.files import CARD
from coattn.serialization.hub import PREFIX, is_allowed, readable_errors


class Pushed(NamedTuple):
    """An upload.

    Attributes:
        url: the page of the model on the Hub.
        files: the uploaded files, by their paths in the repository.
        left_out: files of the folder that do not belong to a model directory and were not uploaded.
    """

    url: str
    files: list[str]
    left_out: list[str]


def push(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    license: str | None = None,
    languages: Sequence[str] = (),
    datasets: Sequence[str] = (),
    private: bool = False,
) -> Pushed:
    """Upload a model directory as one commit, with a model card that the Hub can show and search.

    The repository is created if it does not exist. Files of a model directory that an earlier upload left there, and
    that this model does not have, are deleted from it. The token is the one that `hf auth login` or HF_TOKEN set.

    Args:
        folder: the model directory; it is read as strictly as `load_directory` reads it.
        repo: "user/name".
        license: the license of the model, by the Hub's id, e.g. "apache-2.0"; needed unless the card names one.
        languages: codes of the languages of the questions, e.g. "en".
        datasets: ids of the data sets on the Hub that the model was trained on.
        private: create the repository as a private one.

    Raises:
        FileNotFoundError, ValueError: not a readable model directory; no license; the Hub refuses or cannot be reached.
        ModuleNotFoundError: the extra `hub` is not installed.
    """
    hub = require("huggingface_hub", "hub")
    repo, folder = repo.removeprefix(PREFIX), Path(folder)
    directory = load_directory(folder)
    card = folder / CARD
    text = update_metadata(
        card.read_text(encoding="utf-8") if card.is_file() else f"# {repo.rpartition('/')[2]}\n",
        {
            "license": license,
            "language": list(languages),
            "tags": ["visual-question-answering", "co-attention"],
            "datasets": list(datasets),
            "metrics": [hub_metric(directory.metric)],
        },
        where=str(card),
    )
    # The introduction of a card tells how to ask the model: under its new name.
    text = re.sub(r"coattn ask .*? IMAGE", f"coattn ask {PREFIX}{repo} --allow-download IMAGE", text)
    text = re.sub(r'Predictor\.load\("[^"\n]*"\)', f'Predictor.load("{PREFIX}{repo}", allow_download=True)', text)

    paths = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
    files = sorted(file for file in paths.keys() | {CARD} if is_allowed(file))
    operations = [
        hub.CommitOperationAdd(file, text.encode() if file == CARD else str(paths[file].resolve())) for file in files
    ]
    with readable_errors(f"{PREFIX}{repo}"):
        api = hub.HfApi()
        url = api.create_repo(repo, private=private, exist_ok=True)
        there = [file.rfilename for file in api.model_info(repo).siblings]
        stale = [file for file in there if is_allowed(file) and file not in files]
        operations += [hub.CommitOperationDelete(file) for file in stale]
        api.create_commit(repo, operations, commit_message="Upload a model of coattn")
    return Pushed(str(url), files, sorted(paths.keys() - set(files)))
