"""`coattn fit | validate | test | predict`: Lightning's command line around our task and data, and the files of a run.

runs/NAME/config.yaml       all settings of the run
runs/NAME/checkpoints/      best.ckpt and last.ckpt, only to go on from
runs/NAME/logs/version_0/   metrics.csv and TensorBoard's events; another version for each time it is continued
runs/NAME/model/            the model directory, when training has finished
runs/NAME/predictions/      result files
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonargparse import set_loader
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

from coattn._internal.files import atomic_path
from coattn._internal.hints import did_you_mean, wrong_setting
from coattn.datasets.results import FORMS, Results, default_name, write_results
from coattn.explain.abstain import Safeguards
from coattn.metrics.score import score
from coattn.serialization.directory import load_directory
from coattn.training.callbacks import (
    BEST,
    LAST,
    AtomicCheckpointIO,
    Checkpoints,
    DivergedError,
    Epochs,
    read_checkpoint,
)
from coattn.training.certify import split_doubts
from coattn.training.controls import image_controls
from coattn.training.data import VQADataModule
from coattn.training.evaluation import CollectAnswers, results_by_question
from coattn.training.export import export_model
from coattn.training.options import adapt_to_preset, check_safe, check_trainer, read_yaml, renamed
from coattn.training.signals import SIGNALS, Stopped
from coattn.training.task import VQATask

LINKED = ("num_words", "question_dim", "text_config", "region_dim", "num_answers", "num_answer_words")
_VOCABULARY = ("text.tokenizer", "text.min_word_count", "answers.max_count", "answers.min_count")
_MADE = ("checkpoints", "logs", "model", "predictions", "config.yaml", "hpc_ckpt_*.ckpt")
_HIDDEN = {"verbose", "weights_only", "return_predictions", "model", "datamodule", "dataloaders", "ckpt_path"}
_EXAMPLES = {
    "fit": "coattn fit --config configs/easy_vqa.yaml --model.sizes.dim 128 --model.optimizer.lr 1e-3",
    "validate": "coattn validate --config configs/easy_vqa.yaml",
    "test": "coattn test --config configs/easy_vqa.yaml --ckpt_path last",
    "predict": "coattn predict --config configs/easy_vqa.yaml --ckpt_path runs/easy_vqa/model --output results.json",
}
_DESCRIPTIONS = {
    "fit": "Train a model. Every setting of the YAML file can be given on the command line too.",
    "validate": "Score a trained model on the validation questions.",
    "test": "Score a trained model on the test questions.",
    "predict": "Write the answers of a trained model to a result file.",
}

_NOISE = (
    "Tip:",  # its other products
    "Loading `train_dataloader` to estimate",
    "Experiment logs directory",  # the two loggers share a folder
    "The number of training batches",  # few batches are no mistake
    "across ranks is zero",  # nor are no validation questions
    "callbacks used to create the checkpoint need to be provided",  # not to validate, test or predict
    "LeafSpec` is deprecated",
    "instantiate_classes",
)


def main(arguments: Sequence[str]) -> int:
    """Run one command, given with all its arguments.

    Raises:
        ValueError: a mistake in the settings or the data.
        KeyboardInterrupt: training was interrupted; its last checkpoint is written.
    """
    try:
        with _quiet(), SIGNALS.installed():
            _CommandLine(list(arguments))
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        hint = "; run the same command with --resume to go on" if arguments[0] == "fit" else "; nothing was written"
        print(f"coattn: ended by {name}{hint}", file=sys.stderr)
        return int(stopped.code or 1)
    return 0


try:
    import fcntl
except ModuleNotFoundError:  # Windows: folders of runs are not locked
    fcntl = None  # type: ignore[assignment]


class _CommandLine(LightningCLI):
    """One command: parses, builds, runs."""

    def __init__(self, arguments: list[str]) -> None:
        self.command = arguments[0]
        self.checkpoint: Path | None = None
        super().__init__(
            VQATask,
            VQADataModule,
            args=arguments,
            seed_everything_default=0,
            save_config_callback=None,
            auto_configure_optimizers=False,
            parser_class=_Parser,
            load_from_checkpoint_support=False,  # the task stores its own arguments, which are plain values
            parser_kwargs={"prog": "coattn"},
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command that runs, with the arguments of the Trainer's method that are not offered.

        Building the parser of a command takes about as long as half an import of torch, so the others are left out.
        """
        return {self.command: _HIDDEN | {"train_dataloaders", "val_dataloaders"}}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that raises, and takes no shortened names."""
        return super().init_parser(exit_on_error=False, allow_abbrev=False, **kwargs)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        kwargs |= {"description": _DESCRIPTIONS[subcommand], "epilog": f"example: {_EXAMPLES[subcommand]}"}
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            parser.add_argument(
                "--resume", action="store_true", help="Go on from the run's last checkpoint, if it has one."
            )
            parser.add_argument("--overwrite", action="store_true", help="Replace the run that is in the folder.")
            text = "Train no further, and write the model directory of the run's best or last checkpoint."
            parser.add_argument("--export-only", action="store_true", help=text)
            text = "Checkpoint to go on from: a file, 'last' or 'best'."
        else:
            text = "Model to use: 'best' (the default), 'last', a checkpoint file, or a model directory."
        parser.add_argument(
            "--safe", action="store_true", help="Allow only classes of coattn and lightning in the settings."
        )
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=text)
        text = "Only warn if another extractor made the features."
        parser.add_argument("--allow-other-features", action="store_true", help=text)
        if subcommand == "predict":
            parser.add_argument("--output", type=str | None, default=None, help="Result file to write.")
            text = f"Evaluation server whose format the result file has: {', '.join(FORMS)}."
            parser.add_argument("--format", type=str, default="vqa", help=text)
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what follows from the data, and let the checkpoints be set."""
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")
        parser.add_class_arguments(Checkpoints, "checkpoints", skip={"folder"})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; a mistake is explained, with the nearest name."""
        if "--safe" in args:
            check_safe(args)
        set_loader("yaml", read_yaml, exceptions=(yaml.YAMLError,))
        args = [renamed(argument, following) for argument, following in itertools.zip_longest(args, args[1:])]
        self.arguments = args
        try:
            self.config = parser.parse_args(args)
        except argparse.ArgumentError as error:
            raise ValueError(self._explain(str(error), args)) from None

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let the checkpoint's settings silently override those given."""

    def before_instantiate_classes(self) -> None:
        """Find the folder and the checkpoint, and let the data take its vocabularies from there."""
        config = self.config[self.command]
        self.settings = config
        for name in LINKED:
            if config.model.get(name) is not None:
                raise ValueError(f"model.{name} is set to {config.model[name]}, but follows from the data; remove it")
        check_trainer(config.trainer, self._parser(self.command).get_defaults().trainer)
        if left_out := adapt_to_preset(config, self.arguments, [str(file) for file in config.config or []]):
            rank_zero_info(f"the preset {config.model.preset!r} does not take {', '.join(left_out)}: left out")
        if config.trainer.default_root_dir is None:
            config.trainer.default_root_dir = str(Path("runs", self._name()))
        self.root = Path(config.trainer.default_root_dir)
        if config.allow_other_features:
            config.data.allow_other_features = True
        if config.data.seed is None:
            config.data.seed = int(config.seed_everything)
        self.checkpoint = self._checkpoint_to_continue() if self.command == "fit" else self._checkpoint_to_use()
        self.vocabulary_from = config.data.vocabulary_from
        if self.vocabulary_from is not None:
            defaults = self._parser(self.command).get_defaults()
            for name in _VOCABULARY:
                if config[f"data.{name}"] != defaults[f"data.{name}"]:
                    rank_zero_warn(
                        f"data.{name} has no effect, because the vocabularies come from data.vocabulary_from"
                    )
        if self.checkpoint is not None:
            config.data.vocabulary_from = str(self.checkpoint)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with our loggers, progress bar and checkpoint files."""
        config = self._get(self.config_init, "trainer")
        fitting = self.command == "fit"
        before = [] if fitting and self.settings.overwrite else list(self.root.glob("logs/version_*"))
        version = f"version_{len(before)}"
        if config["logger"] is None:
            loggers = [TensorBoardLogger(self.root, "logs", version), CSVLogger(self.root, "logs", version)]
            kwargs["logger"] = loggers if fitting else False
        plugins = config["plugins"] or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        callbacks = list(config["callbacks"] or [])
        if config["enable_progress_bar"] is not False:
            callbacks.append(_ProgressBar(refresh_rate=20 if sys.stderr.isatty() else 200))
        if fitting and config["enable_checkpointing"] is not False:
            callbacks.append(self._get(self.config_init, "checkpoints"))
        else:
            kwargs["enable_checkpointing"] = False
        trainer = Trainer(**{**config, **kwargs, "callbacks": callbacks})
        # Lightning's handlers broadcast inside a signal handler, which can deadlock, and answer all questions first.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand == "fit":
            writes = _is_first_process() and not self.trainer.fast_dev_run  # type: ignore[attr-defined]
            with _locked(self.root) if writes else nullcontext():
                self._fit()
        elif subcommand == "predict":
            self._predict()
        else:
            self._score()

    def _fit(self) -> None:
        trial = self.trainer.fast_dev_run  # type: ignore[attr-defined]
        first = _is_first_process() and not trial
        if first:
            self.datamodule.setup("fit")  # mistakes in the data show before anything is replaced
            if self.checkpoint is None:
                self.model.check_data(self.datamodule)
            if self.settings.overwrite:
                _remove_run(self.root)
            for leak in self.datamodule.leaks("val"):
                rank_zero_warn(f"validation: {leak}")
            self._save_config()
        epochs, began, diverged = Epochs(), time.monotonic(), None
        self.trainer.callbacks.append(epochs)  # type: ignore[attr-defined]
        try:
            if not self.settings.export_only:
                self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=self.checkpoint)
        except DivergedError as error:
            diverged = error
        if not first or not self.trainer.is_global_zero:
            if diverged:
                raise diverged
            return
        kept = [path for name in (BEST, LAST) if (path := self.root / "checkpoints" / name).exists()]
        if diverged and not kept:
            raise diverged
        if self.settings.export_only and not kept:
            raise ValueError(f"{self.root} has no checkpoint to export; train first")
        folder = self.root / "model"
        device = self.trainer.strategy.root_device
        checkpoint = kept[0] if kept else None
        evaluation = export_model(folder, self.model, self.datamodule, checkpoint=checkpoint, device=device)
        if diverged:
            raise ValueError(f"{diverged}. The last good weights ({kept[0]}) are in {folder}")
        known = f": {evaluation.scores.overall:.2f} % on the validation questions" if evaluation is not None else ""
        if epochs.rows:
            print(f"{epochs.table()}\ntotal time: {time.monotonic() - began:.1f} s")
        print(f"{folder}{known}\nnext:\n  {self._next(folder)}")

    def _next(self, folder: Path) -> str:
        """Commands that use the trained model."""
        ask = f'coattn ask {shlex.quote(str(folder))} IMAGE "QUESTION" --map map.png'
        config = shlex.quote(str(self.root / "config.yaml"))
        judged = bool(self.datamodule.settings.files.test_annotations)
        return f"coattn test --config {config}\n  {ask}" if judged else ask

    def _score(self) -> None:
        split = {"validate": "val", "test": "test"}[self.command]
        results = self._answer(split)
        if results is None:
            return
        data = self.datamodule.split(split)
        for leak in self.datamodule.leaks(split):
            rank_zero_warn(f"{self.command}: {leak}")
        records = [record for record in data.records if record.question_id in results.answers]
        scores = score(results, records, data.metric, num_samples=1000 if self.command == "test" else 0)
        self._write_results(results, split, self.root / "predictions" / f"{split}.json")
        print(scores.table())
        if self.command == "test":
            device = self.trainer.strategy.root_device
            print("\nThe same model with other images, in percent:")
            for name, value in image_controls(self.model, self.datamodule, split, device).items():
                print(f"  {name:<16} {value:.2f}")

    def _predict(self) -> None:
        form = self.settings.format
        if form not in FORMS:
            raise ValueError(f"--format is {form!r}, must be one of {', '.join(FORMS)}")
        results = self._answer("predict")
        if results is not None:
            output = self.settings.output or self.root / "predictions" / default_name(self._predicted(), form)
            self._write_results(results, "predict", Path(output), form=form)
            self._write_doubts(Path(output).with_suffix(".doubts.json"))

    def _write_doubts(self, path: Path) -> None:
        """Say which answers of a model directory are to be doubted, and write why, by question id."""
        assert self.checkpoint is not None
        if not self.checkpoint.is_dir():
            return
        found = split_doubts(Safeguards.load(self.checkpoint), self.datamodule, "predict")
        if not found:
            return
        with atomic_path(path) as partial:
            partial.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print(f"{path}: reasons to doubt {len(found)} of the answers")

    def _answer(self, split: str) -> Results | None:
        """The answers to a split, by question; None on all devices but the first."""
        assert self.checkpoint is not None
        collect = CollectAnswers()
        self.trainer.callbacks.append(collect)  # type: ignore[attr-defined]
        path: Path | None = self.checkpoint
        if self.checkpoint.is_dir():
            directory = load_directory(self.checkpoint)
            self.datamodule.check_inputs(directory.extractor, directory.text_encoder, directory.max_tokens)
            self.model.model, self.model.temperature = directory.model, directory.temperature
            path = None
        arguments = {"verbose": False} if self.command != "predict" else {"return_predictions": False}
        run = getattr(self.trainer, self.command)
        run(self.model, datamodule=self.datamodule, ckpt_path=path, **arguments)
        if not self.trainer.is_global_zero:
            return None
        total = len(self.datamodule.split(split).records)
        if len(collect.positions) < total:
            rank_zero_warn(
                f"trainer.limit_{split}_batches: only {len(collect.positions)} of {total} questions are answered, "
                "a fixed random sample"
            )
        return results_by_question(
            self.datamodule, split, collect.numbers, collect.confidences, positions=collect.positions
        )

    def _write_results(self, results: Results, split: str, path: Path, *, form: str = "vqa") -> None:
        records = [record for record in self.datamodule.split(split).records if record.question_id in results.answers]
        write_results(path, results, records, form=form)
        print(f"{path}: answers of {self.checkpoint} to {len(results.answers)} questions")

    def _predicted(self) -> str:
        """The name of the predicted questions, from their file: `val` for `val_questions.json`."""
        files = self.datamodule.settings.files
        files = files.predict_questions or files.test_questions
        return Path(files if isinstance(files, str) else files[0]).name.split(".")[0].removesuffix("_questions")

    def _name(self) -> str:
        files = self.settings.config
        return Path(str(files[-1])).stem if files else self.settings.model.preset or "run"

    def _checkpoint_to_continue(self) -> Path | None:
        config, folder = self.settings, self.root / "checkpoints"
        if config.overwrite and (config.resume or config.ckpt_path):
            raise ValueError("--overwrite starts anew: leave out --resume and --ckpt_path")
        present = [folder / name for name in (LAST, BEST) if (folder / name).exists()]
        present += self.root.glob("hpc_ckpt_*.ckpt")  # under SLURM, Lightning would go on from such a file by itself
        if config.resume and config.ckpt_path is None:
            return present[0] if present else None
        checkpoint = None if config.ckpt_path is None else self._named_checkpoint(config.ckpt_path)
        goes_on = checkpoint is not None and checkpoint.resolve().parent == folder.resolve()
        # Only the first process looks: when the others are started the run has begun.
        if present and not goes_on and not config.overwrite and _is_first_process():
            raise ValueError(
                f"{self.root} already holds a run ({present[0]}); go on with it (--resume), replace it (--overwrite), "
                "or give another folder (--trainer.default_root_dir)"
            )
        return checkpoint

    def _checkpoint_to_use(self) -> Path:
        if self.settings.ckpt_path is not None:
            return self._named_checkpoint(self.settings.ckpt_path)
        best, last = (self.root / "checkpoints" / name for name in (BEST, LAST))
        return best if best.exists() else self._named_checkpoint(str(last))

    def _named_checkpoint(self, name: str) -> Path:
        path = self.root / "checkpoints" / f"{name}.ckpt" if name in ("best", "last") else Path(name)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such checkpoint; train first (coattn fit), or give --ckpt_path")
        if path.is_file():
            read_checkpoint(path, complete=self.command == "fit")
        if path.is_dir() and self.command == "fit":
            raise ValueError(f"{path}: training goes on from a checkpoint file (.ckpt), not from a model directory")
        return path

    def _save_config(self) -> None:
        settings = self.settings.clone()
        settings.data.vocabulary_from = self.vocabulary_from
        for name in (
            "config",
            "resume",
            "overwrite",
            "export_only",
            "safe",
            "ckpt_path",
            "allow_other_features",
        ):  # of this start only
            settings.pop(name, None)
        text = self._parser(self.command).dump(settings)
        with atomic_path(self.root / "config.yaml") as partial:
            partial.write_text(text, encoding="utf-8")

    def _explain(self, message: str, arguments: list[str]) -> str:
        """A parser's message with what the user should do."""
        if link := re.search(r"data\.\w+ --> (model\.\w+)", message):
            return f"{link[1]} follows from the data; remove it"
        if message.startswith("Problems parsing config"):
            files = " ".join(argument for argument in arguments if argument.endswith((".yaml", ".yml", ".json")))
            return f"{files}: not valid YAML: {' '.join(message.split())}"
        unknown = re.search(r"unrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'", message)
        if unknown is None:
            return wrong_setting(message)
        name = unknown[1] or unknown[2]
        parser = self._subcommand_parsers.get(arguments[0], self.parser)
        known = [action.dest for action in parser._actions if action.dest not in ("help", "config")]
        return f"there is no setting {name!r}{did_you_mean(name, known)}"


class _Parser(LightningArgumentParser):
    def add_class_arguments(self, theclass: type, *arguments: Any, **options: Any) -> list[str]:
        """Offer what a YAML file can say: of a model a preset and its sizes, not the object."""
        if issubclass(theclass, LightningModule):
            options["skip"] = {"model"}
        return super().add_class_arguments(theclass, *arguments, **options)


def _is_first_process() -> bool:
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]


class _ProgressBar(TQDMProgressBar):
    def get_metrics(self, trainer: Trainer, pl_module: Any) -> dict[str, Any]:
        """With the loss, which is fetched from the device only when the bar is drawn; without the loggers' version."""
        usual = super().get_metrics(trainer, pl_module)
        loss = trainer.callback_metrics.get("train/loss") if trainer.training else None
        shown = {} if loss is None else {"train/loss": float(loss)}
        return shown | {name: value for name, value in usual.items() if name != "v_num"}


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Lightning says at each start and nobody can do anything about."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(_is_of_interest)
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", f".*{re.escape(message)}")
            yield
    finally:
        logger.removeFilter(_is_of_interest)


def _is_of_interest(record: logging.LogRecord) -> bool:
    return not any(message in record.getMessage() for message in _NOISE)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Lock the folder of a run; the lock ends with the process. A folder that stays empty is removed.

    Raises:
        ValueError: another run holds the lock.
    """
    root.mkdir(parents=True, exist_ok=True)
    handle = os.open(root, os.O_RDONLY)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"{root} is in use by another run; give another folder (--trainer.default_root_dir)") from None
    except OSError:  # a network file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)
        if not any(root.iterdir()):
            root.rmdir()


def _remove_run(root: Path) -> None:
    """Remove what a run makes, and nothing else that may lie in its folder."""
    for path in [path for name in _MADE for path in root.glob(name)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
