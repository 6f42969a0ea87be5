"""The data module: questions, answers and features of each split, as batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from coattn.features.residency.features import Features, open_features
from coattn.features.residency.placement import Residency
from coattn.features.store.joined import JoinedStore
from coattn.features.store.reader import FeatureStore
from coattn.text.pretrained_tokenizer import PretrainedTokenizer
from coattn.text.vocabulary import Vocabulary
from coattn.training.batches import Batch, Draw
from coattn.training.dataset import Questions, Split, Targets, as_list, check_sources, make_split, read_files
from coattn.training.loader import BatchLoader
from coattn.training.order import Curriculum, TrainingOrder, evaluation_draws
from coattn.training.settings import check_settings
from coattn.training.text_inputs import TextInputs

Paths = str | list[str]


class VQADataModule(LightningDataModule):
    """Questions and annotations in the official VQA v2 JSON, region features from stores.

    The vocabularies are made of the training questions alone, or taken from a saved model.

    Args:
        features: feature store (file or folder) with the images of all splits; several are read as one.
        train_questions: questions to train on; several files are read as one. Likewise the next ones.
        train_annotations: their answers.
        val_questions: questions to validate on.
        val_annotations: their answers.
        test_questions: questions to test on.
        test_annotations: their answers; not needed to predict.
        predict_questions: questions to predict; the test questions if not given.
        question_embeddings: store of token embeddings made by `coattn embed`, instead of a vocabulary of words.
        text_encoder: folder or name of a text encoder of `transformers` that is trained with the model, instead of a
            vocabulary of words. A name has to be on this machine, or ...
        allow_download: ... is fetched from the Hub.
        word_vectors: file of word vectors (GloVe's text files, or JSON from word to numbers) that the word embeddings
            start with; as wide as the model's `embedding_dim`. To freeze them: model.lr_scale
            {question_encoder.embedding: 0}.
        batch_size: most questions of a training batch, over all devices together.
        eval_batch_size: the same outside training; twice batch_size if not given.
        tokenizer: how questions are split into words, a name of `coattn.text.tokenizer.TOKENIZERS`.
        max_tokens: longer questions are cut at the end; to what a text encoder admits if not given. Not for
            question_embeddings, which are cut when made.
        min_word_count: a word enters the vocabulary if the training questions have it so many times.
        answers: "choices" for a model that chooses among the answers of a vocabulary; "words" for one that writes them
            word by word.
        max_answers: size of the answer vocabulary, the most frequent answers; all if not given.
        min_answer_count: an answer enters if it is the answer of so many training questions; with "words", a word if
            their answers have it so many times.
        targets: what an answer to a training question is worth: "soft", the official accuracy of giving it; "typed",
            the same without bringing answers to their normal form first; "share", the part of the people who gave it;
            "single", 1 for the one answer that the data set names. All other splits are judged by "soft".
        known_answers_only: leave out training questions that no answer of the vocabulary is right for.
        vocabulary_from: checkpoint or model directory whose vocabularies are taken instead.
        allow_other_features: only warn if features come from another extractor than those a checkpoint was trained on.
        flips: show mirrored images half of the time in training; the store must hold them (`coattn extract --flips`).
        pool: so many optimiser steps are filled together by size, which saves padding; 1 mixes sizes.
        group_by_image: in training the questions of an image come together, so that it comes from the disk once for
            all of them. Batches are then less mixed, and questions not sorted by length.
        residency: where features live, see `coattn.features.residency.place`: "device", "pinned", "mmap" or "auto".
        residency_budget: most GB of features on the GPU, or on a CPU in RAM; by what is free if not given.
        curriculum: show only the questions of some types at first, for so many epochs (fractions allowed):
            `{question_types: [...], epochs: 0.5}`.
        seed: of the order of batches and of flips; on the command line `seed_everything` if not given, else 0.
        num_workers: processes that read texts ahead, which are so small that 0 is mostly fastest.
        pin_memory: page-locked texts, for copies to a GPU; by default where one computes. (Features that go to a GPU
            always are.)
        start_method: how workers are started; the platform's way if not given.

    Attributes:
        text: what questions and answers are read with: vocabularies, word vectors, embeddings or a text encoder.
    """

    def __init__(
        self,
        features: Paths,
        train_questions: Paths | None = None,
        train_annotations: Paths | None = None,
        val_questions: Paths | None = None,
        val_annotations: Paths | None = None,
        test_questions: Paths | None = None,
        test_annotations: Paths | None = None,
        predict_questions: Paths | None = None,
        question_embeddings: str | None = None,
        text_encoder: str | None = None,
        allow_download: bool = False,
        word_vectors: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        tokenizer: str = "plain",
        max_tokens: int | None = None,
        min_word_count: int = 1,
        answers: Literal["choices", "words"] = "choices",
        max_answers: int | None = None,
        min_answer_count: int = 1,
        targets: Targets = "soft",
        known_answers_only: bool = False,
        vocabulary_from: str | None = None,
        allow_other_features: bool = False,
        flips: bool = False,
        pool: int = 16,
        group_by_image: bool = False,
        residency: Residency = "auto",
        residency_budget: float | None = None,
        curriculum: Curriculum | None = None,
        seed: int | None = None,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        start_method: Literal["fork", "spawn", "forkserver"] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_settings(self.hparams)
        self._read: dict[str, Questions] = {}
        self.text = TextInputs(self.hparams, self._training_questions)
        self._splits: dict[str, Split] = {}
        self._order: TrainingOrder | None = None
        self._resident: tuple[torch.device, list[str], Features] | None = None

    @cached_property
    def features(self) -> FeatureStore | JoinedStore:
        """The feature store, or several as one."""
        stores = [FeatureStore(path) for path in as_list(self.hparams["features"])]
        return stores[0] if len(stores) == 1 else JoinedStore(stores)

    @property
    def num_words(self) -> int | None:
        """Rows a word embedding needs; None with question embeddings or a text encoder."""
        words = self.text.vocabularies.words
        return len(words) if isinstance(words, Vocabulary) else None

    @property
    def question_dim(self) -> int | None:
        """Width of the question embeddings, of a store or of a text encoder; None with a vocabulary of words."""
        words = self.text.vocabularies.words
        if isinstance(words, PretrainedTokenizer):
            return words.dim
        return None if self.text.embeddings is None else self.text.embeddings.dim

    @property
    def text_config(self) -> str | None:
        """Architecture of the text encoder that is trained, see `FinetunedQuestionEncoder`; None if there is none."""
        words = self.text.vocabularies.words
        return words.config if isinstance(words, PretrainedTokenizer) else None

    @property
    def region_dim(self) -> int:
        """Width of the region features."""
        return self.features.dim

    @property
    def num_answers(self) -> int | None:
        """Size of the answer vocabulary; None where answers are written."""
        return len(self.text.vocabularies.answers) if self.hparams["answers"] == "choices" else None

    @property
    def num_answer_words(self) -> int | None:
        """Size of the vocabulary of answer words; None where answers are chosen."""
        return len(self.text.vocabularies.answers) if self.hparams["answers"] == "words" else None

    @property
    def has_validation(self) -> bool:
        """Whether there are validation questions."""
        return self.hparams["val_questions"] is not None

    def setup(self, stage: str) -> None:
        """Read the splits that a stage ("fit", "validate", "test", "predict") needs, so that mistakes show at once."""
        needed = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"], "predict": ["predict"]}[stage]
        for name in needed:
            if name != "val" or stage == "validate" or self.hparams["val_questions"] is not None:
                self.split(name)
        if stage == "fit":
            _ = self.order.easy_first  # a wrong curriculum shows at once too

    def split(self, name: str) -> Split:
        """A split by name, read when first asked for.

        Raises:
            ValueError: its files are not given or not as they should be, or an image has no features.
        """
        if name not in self._splits:
            self._splits[name] = make_split(
                name,
                self._questions(name),
                self.text.vocabularies,
                self.features,
                self.hparams,
                embeddings=self.text.embeddings,
                max_tokens=self.text.max_tokens,
            )
        return self._splits[name]

    def region_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation (D,) of the features of the training images, each image counted once."""
        mean, std = self.features.statistics(np.unique(self.split("train").images))
        return torch.from_numpy(mean), torch.from_numpy(std)

    def train_dataloader(self) -> BatchLoader:
        """Batches of the present epoch, from where the trainer is in it; so a run goes on in the midst of an epoch."""
        padding = self.order.padding
        rank_zero_info(f"padding: {padding.regions:.1%} of the regions, {padding.tokens:.1%} of the tokens")
        return self._loader(self.split("train"), self._training_draws, len(self.order))

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """The validation questions; none if there are no such files."""
        return self.evaluation_loader("val") if self.hparams["val_questions"] is not None else []

    def test_dataloader(self) -> BatchLoader:
        """The test questions."""
        return self.evaluation_loader("test")

    def predict_dataloader(self) -> BatchLoader:
        """The questions to predict."""
        return self.evaluation_loader("predict")

    def evaluation_loader(self, name: str, *, whole: bool = False) -> BatchLoader:
        """All questions of a split, by size; this device's share of each batch, or with `whole` everything."""
        split, rank = self.split(name), (0, 1) if whole else self._rank()
        size = self.hparams["eval_batch_size"] or 2 * self.hparams["batch_size"]
        draws = evaluation_draws(split, size, *rank)
        return self._loader(split, lambda: draws, len(draws))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """A batch where the model is, by a shorter way than Lightning's, which looks for tensors in anything."""
        return batch.to(device)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the vocabularies, what made the features, and what decides the order of batches."""
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
        """Refuse inputs made in another way than those the model was trained on.

        Raises:
            ValueError: questions are cut elsewhere; or features or embeddings were made by something else, and
                `allow_other_features` is not set.
        """
        if max_tokens != self.text.max_tokens:
            raise ValueError(f"the model was trained with data.max_tokens {max_tokens}, not {self.text.max_tokens}")
        pairs = [(extractor, self.features)]
        if text_encoder is not None and self.text.embeddings is not None:
            pairs.append((text_encoder, self.text.embeddings))
        check_sources(pairs, allow=self.hparams["allow_other_features"])

    @property
    def order(self) -> TrainingOrder:
        """Which training questions come when."""
        accumulate = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        if self._order is None or self._order.accumulate != accumulate:
            self._order = TrainingOrder(self.split("train"), self.features, self.hparams, accumulate=accumulate)
        return self._order

    def _training_draws(self) -> list[Draw]:
        epoch, done = 0, 0
        if self.trainer is not None and self.trainer.training:
            # The trainer counts batches that were trained on, not those that workers have read ahead.
            epoch, done = self.trainer.current_epoch, self.trainer.fit_loop.batch_idx + 1
        return self.order.draws(epoch, *self._rank(), done=done)

    @property
    def seed(self) -> int:
        """Of the order of batches, of flips, and of what word vectors do not give."""
        return self.hparams["seed"] or 0

    def _rank(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _reader(self) -> Features:
        """What gathers the images of all splits that were read so far, on the device that computes."""
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if self._resident is None or self._resident[:2] != (device, list(self._splits)):
            self._resident = None  # before others take its place
            images = [
                self.order.all_images if name == "train" else split.images for name, split in self._splits.items()
            ]
            budget = self.hparams["residency_budget"]
            features, where = open_features(
                self.features,
                np.concatenate(images),
                self.hparams["residency"],
                device,
                budget=None if budget is None else 1e9 * budget,
                num_ranks=1 if self.trainer is None else self.trainer.num_devices,
                progress=self._rank()[0] == 0,
            )
            rank_zero_info(where)
            self._resident = (device, list(self._splits), features)
        return self._resident[2]

    def _loader(self, split: Split, draws: Callable[[], list[Draw]], length: int) -> BatchLoader:
        options, reader = self.hparams, self._reader()
        pin_memory = reader.device.type == "cuda" if options["pin_memory"] is None else options["pin_memory"]
        return BatchLoader(
            split.dataset,
            reader,
            draws,
            length,
            num_workers=options["num_workers"],
            pin_memory=pin_memory,
            start_method=options["start_method"],
        )

    def _training_questions(self) -> Questions:
        return self._questions("train")

    def _questions(self, name: str) -> Questions:
        """The questions of a split, read once."""
        if name not in self._read:
            self._read[name] = read_files(name, self.hparams)
        return self._read[name]
