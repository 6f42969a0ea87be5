"""`coattn fit | validate | test | predict`: Lightning's command line around our task and data, and the files of a run.

runs/NAME/config.yaml       all settings of the run
runs/NAME/checkpoints/      best.ckpt and last.ckpt, only to resume from
runs/NAME/logs/version_0/   metrics.csv and TensorBoard's events; another version for each time it is continued
runs/NAME/model/            the model directory, when training has finished
runs/NAME/predictions/      result files
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonargparse import set_loader
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from coattn._internal.files import write_text
from coattn.datasets.results import FORMS
from coattn.features.extract.processes import SECONDS_WITHOUT_SIGN
from coattn.training.checkpoints import BEST, LAST, AtomicCheckpointIO, Checkpoints, DivergedError
from coattn.training.cli.answering import Answering
from coattn.training.cli.options import (
    DESCRIPTIONS,
    EXAMPLES,
    adapt_to_preset,
    check_safe,
    check_trainer,
    explain_mistake,
    read_yaml,
    renamed,
    try_whole_numbers_first,
)
from coattn.training.cli.run_folder import checkpoint_to_resume, checkpoint_to_use, is_first_process, locked, remove_run
from coattn.training.data.module import VQADataModule
from coattn.training.export import export_model
from coattn.training.lost_ranks import Ranks
from coattn.training.progress import Epochs, ProgressBar, quiet
from coattn.training.stop_signals import SIGNALS, Stopped
from coattn.training.task import VQATask

LINKED = ("num_words", "question_dim", "text_config", "region_dim", "num_answers", "num_answer_words")
_VOCABULARY = ("text.tokenizer", "text.min_word_count", "answers.max_count", "answers.min_count")
_OF_THIS_START = ("config", "resume", "overwrite", "export_only", "safe", "ckpt_path", "allow_other_features")
_HIDDEN = {"verbose", "weights_only", "return_predictions", "model", "datamodule", "dataloaders", "ckpt_path"}


def main(arguments: Sequence[str]) -> int:
    """Run one command, given with all its arguments; returns 128 plus the number of a signal that ended it.

    Raises:
        ValueError: a mistake in the settings or the data.
    """
    try:
        run(arguments)
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        hint = "; run the same command with --resume to continue" if arguments[0] == "fit" else "; nothing was written"
        print(f"coattn: ended by {name}{hint}", file=sys.stderr)
        return int(stopped.code or 1)
    return 0


def run(arguments: Sequence[str], *, hints: bool = True) -> None:
    """Run one command, given with all its arguments.

    Args:
        arguments: the command line, which begins with the name of the command.
        hints: whether `fit` prints the commands that use the model.

    Raises:
        ValueError: a mistake in the settings or the data.
        Stopped: a signal ended the command; the last checkpoint of `fit` is written.
    """
    try:
        with quiet(), SIGNALS.installed():
            _CommandLine(list(arguments), hints)
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None


class _CommandLine(LightningCLI):
    """One command: parses, builds, runs."""

    def __init__(self, arguments: list[str], hints: bool) -> None:
        self.command = arguments[0]
        self.hints = hints
        self.checkpoint: Path | None = None
        try_whole_numbers_first(Trainer.__init__)
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
        """The command, with the arguments of the Trainer's method that it does not offer.

        Only one command is built, because its parser takes about half as long as the import of torch.
        """
        return {self.command: _HIDDEN | {"train_dataloaders", "val_dataloaders"}}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that raises, and takes no shortened names."""
        return super().init_parser(exit_on_error=False, allow_abbrev=False, **kwargs)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        kwargs |= {"description": DESCRIPTIONS[subcommand], "epilog": f"example: {EXAMPLES[subcommand]}"}
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            parser.add_argument(
                "--resume", action="store_true", help="Resume from the run's last checkpoint, if it has one."
            )
            parser.add_argument("--overwrite", action="store_true", help="Replace the run that is in the folder.")
            text = "Train no further, and write the model directory of the run's best or last checkpoint."
            parser.add_argument("--export-only", action="store_true", help=text)
            text = "Checkpoint to resume from: a file, 'last' or 'best'."
        else:
            text = "Download a model of the Hub that is not on this machine."
            parser.add_argument("--allow-download", action="store_true", help=text)
            text = "Model: 'best' (the default), 'last', a checkpoint file, a model directory, or hf://user/name."
        parser.add_argument(
            "--safe", action="store_true", help="Allow only classes of coattn and lightning in the settings."
        )
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=text)
        seconds = SECONDS_WITHOUT_SIGN
        text = f"With several processes: end if one gives no sign of life for this time (default: {seconds:g} s)."
        parser.add_argument("--rank-time-limit", type=float, metavar="SECONDS", default=seconds, help=text)
        text = "Only warn if another extractor made the features."
        parser.add_argument("--allow-other-features", action="store_true", help=text)
        if subcommand == "test":
            text = "Also score by these columns of the questions, for example organ."
            parser.add_argument("--by", type=str, nargs="+", action="extend", metavar="COLUMN", default=[], help=text)
            text = "Also measure how faithful the explanations are, on 300 questions (see `coattn explain-test`)."
            parser.add_argument("--explain", action="store_true", help=text)
        if subcommand == "predict":
            parser.add_argument("--output", type=str | None, default=None, help="Result file to write.")
            text = f"Format of the result file, of an evaluation server or a table: {', '.join(FORMS)}."
            parser.add_argument("--format", type=str, default="vqa", help=text)
            text = "Withhold answers unless at most this share of them is wrong, for example 0.05 (see `coattn ask`)."
            parser.add_argument("--max-risk", type=float | None, metavar="SHARE", default=None, help=text)
            text = "Only record the reasons why --max-risk would withhold answers."
            parser.add_argument("--answer-anyway", action="store_true", help=text)
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
            actions = self._subcommand_parsers.get(args[0], self.parser)._actions
            options = [action.option_strings for action in actions if action.dest not in ("help", "config")]
            known = [names[0].removeprefix("--") for names in options if names]
            raise ValueError(explain_mistake(str(error), args, known)) from None

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
        if self.command == "fit":
            choice = {name: config[name] for name in ("resume", "overwrite", "ckpt_path")}
            self.checkpoint = checkpoint_to_resume(self.root, **choice)
        else:
            self.checkpoint = checkpoint_to_use(self.root, config.ckpt_path, allow_download=config.allow_download)
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
        if fitting and config["enable_progress_bar"] is not False and sys.stderr.isatty():
            callbacks.append(ProgressBar(refresh_rate=20))
        else:
            kwargs["enable_progress_bar"] = False
        if fitting and config["enable_checkpointing"] is not False:
            callbacks.append(self._get(self.config_init, "checkpoints"))
        else:
            kwargs["enable_checkpointing"] = False
        advice = f"run the same command{' with --resume' if fitting else ''} to continue"
        self.ranks = Ranks(advice, self.settings.rank_time_limit)
        trainer = Trainer(**{**config, **kwargs, "callbacks": [*callbacks, self.ranks]})
        self.ranks.attach(trainer)
        # Lightning's handlers broadcast inside a signal handler, which can deadlock, and answer all questions first.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand == "fit":
            writes = is_first_process() and not self.trainer.fast_dev_run  # type: ignore[attr-defined]
            with self.ranks.named_when_lost(), locked(self.root) if writes else nullcontext():
                self._fit()
        else:
            assert self.checkpoint is not None
            answering = Answering(
                subcommand, self.settings, self.trainer, self.model, self.datamodule, self.checkpoint, self.root
            )
            with self.ranks.named_when_lost():
                if subcommand == "predict":
                    answering.predict()
                else:
                    answering.score()

    def _fit(self) -> None:
        trial = self.trainer.fast_dev_run  # type: ignore[attr-defined]
        first = is_first_process() and not trial
        if first:
            self.datamodule.setup("fit")  # reports mistakes in the data before anything is replaced
            if self.checkpoint is None:
                self.model.check_data(self.datamodule)
            if self.settings.overwrite:
                remove_run(self.root)
            for leak in self.datamodule.leaks("val"):
                rank_zero_warn(f"validation: {leak}")
            self._save_config()
        epochs, began, diverged = Epochs(told=not sys.stderr.isatty()), time.monotonic(), None
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
        print(f"{folder}{known}")
        if self.hints:
            print(f"next:\n  {self._next(folder)}")

    def _next(self, folder: Path) -> str:
        """Commands that use the trained model."""
        ask = f'coattn ask {shlex.quote(str(folder))} IMAGE "QUESTION" --map map.png'
        config = shlex.quote(str(self.root / "config.yaml"))
        judged = bool(self.datamodule.settings.files.test_annotations)
        return f"coattn test --config {config}\n  {ask}" if judged else ask

    def _name(self) -> str:
        files = self.settings.config
        return Path(str(files[-1])).stem if files else self.settings.model.preset or "run"

    def _save_config(self) -> None:
        settings = self.settings.clone()
        settings.data.vocabulary_from = self.vocabulary_from
        for name in _OF_THIS_START:
            settings.pop(name, None)
        write_text(self.root / "config.yaml", self._parser(self.command).dump(settings))


class _Parser(LightningArgumentParser):
    def add_class_arguments(self, theclass: type, *arguments: Any, **options: Any) -> list[str]:
        """Offer what a YAML file can say: of a model a preset and its sizes, not the object."""
        if issubclass(theclass, LightningModule):
            options["skip"] = {"model"}
        return super().add_class_arguments(theclass, *arguments, **options)
