"""The data module: questions, answers and features of each split, as batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from coattn.datasets.json_entries import without_collector
from coattn.datasets.leaks import count_leaks, describe_leaks, find_exposures
from coattn.features.residency.features import Features, open_features
from coattn.features.store.joined import JoinedStore
from coattn.features.store.reader import FeatureStore
from coattn.text.pretrained_tokenizer import PretrainedTokenizer
from coattn.text.vocabulary import Vocabulary
from coattn.training.data.batches import Batch, BatchLoader, Draw
from coattn.training.data.order import TrainingOrder, evaluation_draws
from coattn.training.data.settings import (
    AnswerSettings,
    BatchSettings,
    DataSettings,
    Files,
    MemorySettings,
    Paths,
    TextSettings,
    files_of,
)
from coattn.training.data.split import Questions, Split, as_list, check_sources, make_split, read_files
from coattn.training.data.text_inputs import TextInputs
from coattn.training.settings import read_groups

_GROUPS = {
    "files": Files,
    "text": TextSettings,
    "answers": AnswerSettings,
    "batches": BatchSettings,
    "memory": MemorySettings,
}


class VQADataModule(LightningDataModule):
    """Questions, answers and region features of each split, as batches.

    The vocabularies come from the training questions alone, or from a saved model. Settings may also be given by their
    earlier names (`coattn.training.settings.MOVED`).

    Args:
        folder: Folder written by `coattn prepare`. Question and annotation files that are not set are taken from it,
            and features from its subfolder `features`.
        features: Feature store (file or folder) with the images of all splits. Several stores are read as one.
        files: Question and annotation files.
        text: How questions become tokens.
        answers: Which answers a model can give, and what each is worth in training.
        batches: How questions are grouped into batches.
        memory: Where features are kept, and how texts are read.
        vocabulary_from: Checkpoint or model directory whose vocabularies are used.
        allow_other_features: Whether features of another extractor than the checkpoint's cause a warning only.
        skip_missing_images: Whether questions whose image has no features are left out, with a warning that counts and
            names the images.
        seed: Seed of the order of batches and of flips. On the command line it follows `seed_everything`.

    Attributes:
        settings: all of these, with the paths that follow from `folder`.
        text: the text inputs: vocabularies, word vectors, embeddings or a text encoder.

    Raises:
        ValueError: settings that contradict each other.
    """

    def __init__(
        self,
        folder: str | None = None,
        features: Paths | None = None,
        files: Files = Files(),
        text: TextSettings = TextSettings(),
        answers: AnswerSettings = AnswerSettings(),
        batches: BatchSettings = BatchSettings(),
        memory: MemorySettings = MemorySettings(),
        vocabulary_from: str | None = None,
        allow_other_features: bool = False,
        skip_missing_images: bool = False,
        seed: int | None = None,
        **moved: Any,
    ) -> None:
        super().__init__()
        given = {"files": files, "text": text, "answers": answers, "batches": batches, "memory": memory}
        groups = read_groups("data", _GROUPS, given, moved)
        groups["files"] = files_of(folder, groups["files"])
        if features is None:
            if folder is None:
                raise ValueError("set data.folder, or data.features and data.files")
            features = str(Path(folder, "features"))
        self.settings = DataSettings(
            folder,
            features,
            **groups,
            vocabulary_from=vocabulary_from,
            allow_other_features=allow_other_features,
            skip_missing_images=skip_missing_images,
            seed=seed,
        )
        self.save_hyperparameters(dataclasses.asdict(self.settings))
        self._read: dict[str, Questions] = {}
        self.text = TextInputs(self.settings, self._training_questions)
        self._splits: dict[str, Split] = {}
        self._order: TrainingOrder | None = None
        self._resident: tuple[torch.device, list[str], Features] | None = None

    @cached_property
    def features(self) -> FeatureStore | JoinedStore:
        """The feature store, or several as one."""
        stores = [FeatureStore(path) for path in as_list(self.settings.features)]
        return stores[0] if len(stores) == 1 else JoinedStore(stores)

    @property
    def has_validation(self) -> bool:
        """Whether there are validation questions."""
        return bool(self.settings.files.val_questions)

    @property
    def num_words(self) -> int | None:
        """Size of the question vocabulary; None with question embeddings or a text encoder."""
        words = self.text.vocabularies.words
        return len(words) if isinstance(words, Vocabulary) else None

    @property
    def question_dim(self) -> int | None:
        """Width of the question embeddings or of the text encoder; None with a vocabulary of words."""
        words = self.text.vocabularies.words
        if isinstance(words, PretrainedTokenizer):
            return words.dim
        return None if self.text.embeddings is None else self.text.embeddings.dim

    @property
    def text_config(self) -> str | None:
        """Architecture of the text encoder that is trained with the model, see `FinetunedQuestionEncoder`; or None."""
        words = self.text.vocabularies.words
        return words.config if isinstance(words, PretrainedTokenizer) else None

    @property
    def region_dim(self) -> int:
        """Width of the region features."""
        return self.features.dim

    @property
    def num_answers(self) -> int | None:
        """Size of the answer vocabulary; None if answers are written."""
        return len(self.text.vocabularies.answers) if self.settings.answers.kind == "choices" else None

    @property
    def num_answer_words(self) -> int | None:
        """Size of the vocabulary of answer words; None if answers are chosen."""
        return len(self.text.vocabularies.answers) if self.settings.answers.kind == "words" else None

    def setup(self, stage: str) -> None:
        """Read the splits of a stage ("fit", "validate", "test", "predict"), so that mistakes show at once."""
        needed = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"], "predict": ["predict"]}[stage]
        with without_collector():
            for name in needed:
                if name != "val" or stage == "validate" or self.has_validation:
                    self.split(name)
        if stage == "fit":
            _ = self.order.easy_first  # checks the curriculum
            if self.settings.batches.flips and (sided := int(self.order.sided.sum())):
                rank_zero_warn(
                    f"data.batches.flips: {sided} of {len(self.order.sided)} training questions or answers name left "
                    "or right; their images are not mirrored"
                )

    def split(self, name: str) -> Split:
        """A split by name, read at the first call.

        Raises:
            ValueError: its files are missing or invalid, or an image has no features.
        """
        if name not in self._splits:
            self._splits[name] = make_split(
                name,
                self._questions(name),
                self.text.vocabularies,
                self.features,
                self.settings,
                embeddings=self.text.embeddings,
                max_tokens=self.text.max_tokens,
            )
        return self._splits[name]

    def leaks(self, name: str) -> list[str]:
        """One sentence for each way in which a split shares images or questions with the training questions."""
        if not self.settings.files.train_questions or (name == "val" and not self.has_validation):
            return []
        evaluated = self.split(name).records
        exposures = find_exposures(self._questions("train").records, evaluated)
        return describe_leaks(count_leaks(evaluated, exposures), evaluated=name)

    def region_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation (D,) of the features of the training images, each image counted once."""
        mean, std = self.features.statistics(np.unique(self.split("train").images))
        return torch.from_numpy(mean), torch.from_numpy(std)

    def train_dataloader(self) -> BatchLoader:
        """Batches of the current epoch from the trainer's place in it, so that a run can resume within an epoch."""
        padding = self.order.padding
        rank_zero_info(f"padding: {padding.regions:.1%} of the regions, {padding.tokens:.1%} of the tokens")
        return self._loader(self.split("train"), self._training_draws, len(self.order))

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The validation questions; none if there are no such files."""
        return self.evaluation_loader("val") if self.has_validation else []

    def test_dataloader(self) -> BatchLoader:
        """The test questions."""
        return self.evaluation_loader("test")

    def predict_dataloader(self) -> BatchLoader:
        """The questions to predict."""
        return self.evaluation_loader("predict")

    def evaluation_loader(self, name: str, *, whole: bool = False) -> BatchLoader:
        """All questions of a split by size: the share of this device, or with `whole` everything.

        If the trainer uses only a part of the batches, each batch is a fixed random sample of the split.
        """
        split, rank = self.split(name), (0, 1) if whole else self._rank()
        limited = not whole and self._is_limited(name)
        size = self.settings.batches.eval_size or 2 * self.settings.batches.size
        draws = evaluation_draws(split, size, *rank, mixed=limited)
        return self._loader(split, lambda: draws, len(draws))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on the device of the model; Lightning would search it for tensors recursively."""
        return batch.to(device)

    def state_dict(self) -> dict[str, Any]:
        """The data's part of a checkpoint: vocabularies, the record of the extractor, and the settings of the order."""
        return self.text.state_dict() | {"extractor": dict(self.features.record), "order": self.order.record}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data are those of the checkpoint.

        Raises:
            ValueError: another vocabulary, extractor or text encoder; when training, another order of batches.
        """
        self.text.load_state_dict(state_dict)
        self.check_inputs(state_dict["extractor"], state_dict["text_encoder"], state_dict["max_tokens"])
        if self.trainer is not None and self.trainer.training:
            self.order.check(state_dict["order"], word_vectors=self.text.word_vectors_record)

    def check_inputs(
        self, extractor: dict[str, Any], text_encoder: dict[str, Any] | None, max_tokens: int | None
    ) -> None:
        """Check that the inputs are made as those of training.

        Raises:
            ValueError: questions are cut at another length; or features or embeddings come from another extractor, and
                `allow_other_features` is not set.
        """
        if max_tokens != self.text.max_tokens:
            raise ValueError(
                f"the model was trained with data.text.max_tokens {max_tokens}, not {self.text.max_tokens}"
            )
        pairs = [(extractor, self.features)]
        if text_encoder is not None and self.text.embeddings is not None:
            pairs.append((text_encoder, self.text.embeddings))
        check_sources(pairs, allow=self.settings.allow_other_features)

    @property
    def order(self) -> TrainingOrder:
        """The order of the training questions."""
        accumulate = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        if self._order is None or self._order.accumulate != accumulate:
            self._order = TrainingOrder(self.split("train"), self.features, self.settings, accumulate=accumulate)
        return self._order

    def _training_draws(self) -> list[Draw]:
        epoch, done = 0, 0
        if self.trainer is not None and self.trainer.training:
            # The trainer counts the batches that it trained on, not those that workers have read ahead.
            epoch, done = self.trainer.current_epoch, self.trainer.fit_loop.batch_idx + 1
            if self.trainer.overfit_batches:  # type: ignore[attr-defined]
                epoch = 0  # the same batches in each epoch
        return self.order.draws(epoch, *self._rank(), done=done)

    def _is_limited(self, name: str) -> bool:
        """Whether the trainer uses only a part of the batches (`limit_val_batches` and its siblings)."""
        if self.trainer is None:
            return False
        limit = getattr(self.trainer, f"limit_{name}_batches")
        return not (isinstance(limit, float) and limit == 1.0) or bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]

    @property
    def seed(self) -> int:
        """Seed of the order of batches, of flips, and of words without a word vector."""
        return self.settings.seed or 0

    def _rank(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _reader(self) -> Features:
        """The features of all splits read so far, for the device that computes."""
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if self._resident is None or self._resident[:2] != (device, list(self._splits)):
            self._resident = None  # free its memory first
            images = [
                self.order.all_images if name == "train" else split.images for name, split in self._splits.items()
            ]
            budget = self.settings.memory.budget
            features, where = open_features(
                self.features,
                np.concatenate(images),
                self.settings.memory.residency,
                device,
                budget=None if budget is None else 1e9 * budget,
                num_ranks=1 if self.trainer is None else self.trainer.num_devices,
                progress=self._rank()[0] == 0,
            )
            rank_zero_info(where)
            self._resident = (device, list(self._splits), features)
        return self._resident[2]

    def _loader(self, split: Split, draws: Callable[[], list[Draw]], length: int) -> BatchLoader:
        options, reader = self.settings.memory, self._reader()
        pin_memory = reader.device.type == "cuda" if options.pin_memory is None else options.pin_memory
        return BatchLoader(
            split.dataset,
            reader,
            draws,
            length,
            num_workers=options.num_workers,
            pin_memory=pin_memory,
            start_method=options.start_method,
        )

    def _training_questions(self) -> Questions:
        return self._questions("train")

    def _questions(self, name: str) -> Questions:
        """The questions of a split, read once."""
        if name not in self._read:
            self._read[name] = read_files(name, self.settings)
        return self._read[name]
