"""The training task, a LightningModule: model, loss, optimizer and schedule.

Letters: B questions of a batch, L words of an answer, S target answers, A answers and V words of the vocabularies.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from coattn.metrics.calibration import confidences
from coattn.models import FROM_DATA
from coattn.nn import VQAGenerator, VQAModel
from coattn.nn.question import TokenEmbedding
from coattn.serialization.versions import rename_arguments, rename_parameters
from coattn.training.data.batches import Batch
from coattn.training.data.module import VQADataModule
from coattn.training.model import add_text_encoder, build_model, compile_parts, remember_inputs_only
from coattn.training.objectives import make_objective
from coattn.training.optim import check_recipe, freeze_parts, make_optimizer, make_schedule, plain, scale_of
from coattn.training.progress import PeakMemory
from coattn.training.resume import ExactResume
from coattn.training.settings import (
    ExecutionSettings,
    LossSettings,
    OptimizerSettings,
    ScheduleSettings,
    TextEncoderSettings,
    flat,
    read_groups,
    regroup,
)

_LARGE_TEXT_RATE = 2e-4
_ARCHITECTURE = ("preset", "sizes", "text_config", *FROM_DATA)
_GROUPS = {
    "text_encoder": TextEncoderSettings,
    "loss": LossSettings,
    "optimizer": OptimizerSettings,
    "schedule": ScheduleSettings,
    "execution": ExecutionSettings,
}


class BatchAnswers(NamedTuple):
    """The answers to a batch.

    Attributes:
        positions: (B,) places of the questions in their split.
        numbers: (B,) numbers of the answers in the vocabulary, or (B, L) word ids.
        confidences: (B,) in [0, 1].
    """

    positions: Tensor
    numbers: Tensor
    confidences: Tensor


class VQATask(LightningModule):
    """Trains a `VQAModel` or a `VQAGenerator`, passed as an object or as a preset with its sizes.

        VQATask(coattn.nn.VQAModel(...), optimizer=OptimizerSettings(lr=1e-3))
        VQATask(preset="modular", sizes={"dim": 256}, num_words=..., region_dim=..., num_answers=...)

    Gradients are clipped by the Trainer (`gradient_clip_val`). Settings may also be given by their earlier names
    (`coattn.training.settings.MOVED`), for example `lr=1e-3`.

    Args:
        model: A model. A mapping is taken as `sizes`.
        preset: Name of a model in `coattn.models.PRESETS` or `GENERATORS`.
        sizes: The preset's own arguments.
        num_words: Size of the question vocabulary. This and the next five arguments follow from the data.
        question_dim: Width of given question embeddings, or of a text encoder.
        text_config: Architecture of a text encoder that is trained with the model, see `FinetunedQuestionEncoder`. It
            precedes the preset's own question encoder, as `question_encoder.transformer`.
        region_dim: Width of the region features.
        num_answers: Size of the answer vocabulary, for a model that chooses its answer.
        num_answer_words: Size of the vocabulary of answer words, for a model that writes its answer.
        text_encoder: How a text encoder is trained with the model.
        loss: The loss that training minimizes.
        optimizer: The optimizer.
        schedule: The learning rate over time.
        execution: How the model is computed.

    Attributes:
        loss, optimizer_settings, schedule, execution: the groups of settings.
        temperature: divides the logits before they become confidences; a model directory holds a fitted one.

    Raises:
        ValueError: unknown names, or sizes that do not fit together.
    """

    def __init__(
        self,
        model: VQAModel | VQAGenerator | dict[str, Any] | None = None,
        *,
        preset: str | None = None,
        sizes: dict[str, Any] | None = None,
        num_words: int | None = None,
        question_dim: int | None = None,
        text_config: str | None = None,
        region_dim: int | None = None,
        num_answers: int | None = None,
        num_answer_words: int | None = None,
        text_encoder: TextEncoderSettings = TextEncoderSettings(),
        loss: LossSettings = LossSettings(),
        optimizer: OptimizerSettings = OptimizerSettings(),
        schedule: ScheduleSettings = ScheduleSettings(),
        execution: ExecutionSettings = ExecutionSettings(),
        **moved: Any,
    ) -> None:
        super().__init__()
        self.temperature = 1.0
        self.first_bad_step, self.loss_sum, self.loss_count = torch.tensor(-1), torch.zeros(()), 0
        self._totals = torch.zeros(3)
        self.trainer_changes: list[str] = []
        if isinstance(model, dict):
            model, sizes = None, model
        sizes = rename_arguments(sizes)
        given = {
            "text_encoder": text_encoder,
            "loss": loss,
            "optimizer": optimizer,
            "schedule": schedule,
            "execution": execution,
        }
        groups = read_groups("model", _GROUPS, given, moved)
        self.loss, self.optimizer_settings, self.schedule = groups["loss"], groups["optimizer"], groups["schedule"]
        from_data: dict[str, Any] = {
            "num_words": num_words,
            "question_dim": question_dim,
            "region_dim": region_dim,
            "num_answers": num_answers,
            "num_answer_words": num_answer_words,
        }
        self.save_hyperparameters(
            {
                "preset": preset,
                "sizes": sizes,
                **from_data,
                "text_config": text_config,
                **{name: dataclasses.asdict(group) for name, group in groups.items()},
            }
        )
        check_recipe(self.loss, self.optimizer_settings, self.schedule)
        if model is not None:
            if preset is not None or sizes is not None:
                rank_zero_warn("preset and sizes have no effect on a model that is given as such")
            self.model = model.train()  # a loaded model is in eval mode, and the Trainer does not change that
        else:
            if preset is None or region_dim is None or (num_answers is None and num_answer_words is None):
                raise ValueError("give a model, or preset, region_dim, num_answers, and num_words or question_dim")
            self.model = build_model(preset, sizes or {}, **from_data)
        add_text_encoder(self.model, text_config, groups["text_encoder"])
        self.objective = make_objective(self.model, loss=self.loss.name, label_smoothing=self.loss.label_smoothing)
        freeze_parts(self.model, self.optimizer_settings.lr_scale or {})
        if groups["execution"].checkpoint_activations:
            remember_inputs_only(self.model)
        if groups["execution"].compile:
            compile_parts(self.model)

    def forward(self, batch: Batch) -> Tensor:
        """Logits, float32: (B, A) of all answers, or (S, L, V) of all words at each place of the target answers."""
        return self.objective.logits(self.model, batch)

    def configure_callbacks(self) -> list[Callback]:
        """Callbacks that make resuming exact and report the peak memory."""
        resume = ExactResume()
        self.trainer_changes = resume.changes
        return [resume, PeakMemory()]

    def configure_optimizers(self) -> Any:
        """The optimizer, and a schedule that advances with each optimizer step."""
        # Lightning sets up the data by itself only if max_epochs is set.
        if math.isinf(self.trainer.num_training_batches):
            self.trainer.fit_loop.setup_data()
        num_steps = self.trainer.estimated_stepping_batches
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        optimizer = make_optimizer(self.model, self.optimizer_settings, fused=not self._scales_gradients())
        factor = make_schedule(self.schedule, num_steps=num_steps, steps_per_epoch=steps_per_epoch)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, also for a fused optimizer.

        Lightning refuses a fused optimizer with clipping in mixed precision, because the optimizer may unscale the
        gradients after they were clipped. In bfloat16 gradients are not scaled.
        """
        plugin = self.trainer.precision_plugin
        if gradient_clip_val and isinstance(plugin, MixedPrecision) and not self._scales_gradients():
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _scales_gradients(self) -> bool:
        """Whether gradients are scaled against underflow, as in float16."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def check_data(self, data: VQADataModule) -> None:
        """Check that word vectors, if any, fit the model.

        Raises:
            ValueError: the model has no word embeddings, or embeddings of another width.
        """
        vectors, embeddings = data.text.word_vectors, self._word_embeddings()
        if vectors is None:
            return
        if not embeddings:
            raise ValueError(f"{vectors.path}: the model has no word embeddings; remove data.text.word_vectors")
        for name, embedding in embeddings.items():
            if embedding.embedding_dim != vectors.dim:
                raise ValueError(
                    f"{vectors.path}: vectors of {vectors.dim} numbers, but {name} of the model is "
                    f"{embedding.embedding_dim} wide; set model.sizes.embedding_dim (without a recurrence "
                    f"model.sizes.dim) to {vectors.dim}, or give another file"
                )

    def on_fit_start(self) -> None:
        """Initialize a new model from the data: statistics of the training images, word vectors, text encoder.

        A model that resumes from a checkpoint is left as it is.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.trainer.ckpt_path is not None or not isinstance(data, VQADataModule):
            return
        if getattr(self.model.region_encoder, "standardized", False):
            self.model.region_encoder.standardize(*data.region_statistics())  # type: ignore[operator]
        self.check_data(data)
        if data.text.word_vectors is not None:
            rows = data.text.word_vectors.table(seed=data.seed)
            for embedding in self._word_embeddings().values():
                embedding.weight.data.copy_(rows)
        if self.hparams["text_config"] is not None and data.text.encoder_folder is not None:
            self.model.question_encoder.load_weights(data.text.encoder_folder)  # type: ignore[operator]
            self._warn_of_large_steps()

    def _warn_of_large_steps(self) -> None:
        part = "question_encoder.transformer"
        optimizer = self.optimizer_settings
        rate = optimizer.lr * scale_of(f"{part}.layer", optimizer.lr_scale or {})
        if rate > _LARGE_TEXT_RATE:
            rank_zero_warn(
                f"the text encoder is trained with the learning rate {rate:g}, which makes it forget what it knows; "
                f"usual are 1e-5 to 1e-4: set model.optimizer.lr_scale {{{part}: {2e-5 / optimizer.lr:.2g}}}"
            )

    def _word_embeddings(self) -> dict[str, nn.Embedding]:
        """The word embeddings of the question encoder, by name."""
        return {
            f"question_encoder.{name}": module.embed
            for name, module in self.model.question_encoder.named_modules()
            if isinstance(module, TokenEmbedding) and isinstance(module.embed, nn.Embedding)
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the settings of a checkpoint, and rename parameters of earlier versions.

        Raises:
            ValueError: settings of the model, or when training any settings, differ from those of the checkpoint.
        """
        checkpoint["state_dict"] = rename_parameters(checkpoint["state_dict"])
        saved, ours = (
            flat(regroup("model", values)[0]) for values in (checkpoint.get("hyper_parameters", {}), self.hparams)
        )
        fitting = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        compared = [name for name in ours if not name.startswith("execution.")] if fitting else _ARCHITECTURE
        changed = [
            f"model.{name} was {saved[name]!r}, is {ours[name]!r}"
            for name in compared
            if name in saved and plain(saved[name]) != plain(ours[name])
        ]
        if changed:
            raise ValueError(
                f"the checkpoint was made with other settings of the model: {'; '.join(changed)}. "
                "Use those of the checkpoint, or start a new run"
            )
        self._check_state(checkpoint["state_dict"])

    def _check_state(self, state: dict[str, Tensor]) -> None:
        """Check that a checkpoint holds the tensors of this model.

        Raises:
            ValueError: names or shapes differ; the message has the first three.
        """
        ours = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        theirs = {name: tuple(tensor.shape) for name, tensor in state.items()}
        differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if differing:
            shown = [
                f"{name} is {theirs.get(name, 'missing')}, not {ours.get(name, 'expected')}" for name in differing[:3]
            ]
            raise ValueError(
                f"the checkpoint does not fit the settings of the model: {'; '.join(shown)} ({len(differing)} differ)"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the losses on this device, scaled to the mean (or sum) over all questions of the optimizer step.

        Lightning averages over devices and over accumulated batches; `BatchPlan` defines the divisor of a mean.
        """
        losses = self.objective.losses(self.model, batch)
        # These stay on the device until the end of the epoch, so that no step waits for them.
        mean_loss, step = losses.detach().mean(), self.trainer.global_step
        self.first_bad_step = torch.where((self.first_bad_step < 0) & ~mean_loss.isfinite(), step, self.first_bad_step)
        self.loss_sum, self.loss_count = self.loss_sum + mean_loss, self.loss_count + 1
        # Without prog_bar: Lightning would fetch the number from the device after each step.
        self.log("train/loss", mean_loss, batch_size=len(losses))
        mean = self.loss.reduction == "mean"
        return (
            losses.sum()
            * self.trainer.world_size
            * (1 / batch.divisor if mean else self.trainer.accumulate_grad_batches)
        )

    def on_train_epoch_start(self) -> None:
        """Reset the sums of the epoch, on the device."""
        self.loss_sum, self.loss_count = torch.zeros((), device=self.device), 0
        self.first_bad_step = torch.full((), -1, device=self.device)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the learning rate at the steps that are logged."""
        if self.trainer.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            rate = self.trainer.lr_scheduler_configs[0].scheduler.get_last_lr()[0]
            self.log("lr", torch.tensor(rate))  # for a number, Lightning would wait for the GPU

    def validation_step(self, batch: Batch, batch_idx: int) -> BatchAnswers:  # type: ignore[override]
        """Add to the loss and the accuracy, which is the soft score of the best answer.

        It equals the official accuracy except where soft scores differ (`coattn.text.answers.soft_scores`).
        """
        return self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> BatchAnswers:  # type: ignore[override]
        """Same as `validation_step`."""
        return self._evaluate(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> BatchAnswers:
        """The answers without losses."""
        return self._answers(batch, *self.objective.answers(self.model, batch))

    def _evaluate(self, batch: Batch) -> BatchAnswers:
        outcome = self.objective.outcome(self.model, batch)
        totals = torch.stack(
            (outcome.losses.sum(), outcome.accuracy.sum(), outcome.losses.new_tensor(len(outcome.losses)))
        )
        self._totals = self._totals + totals.to(self._totals)
        return self._answers(batch, outcome.answers, outcome.logits)

    def on_validation_epoch_start(self) -> None:
        """Reset the sums of the evaluation."""
        self._totals = torch.zeros(3, device=self.device, dtype=torch.float64 if self.device.type != "mps" else None)

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy over all questions of all devices.

        Lightning's mean over devices rounds their numbers of questions, so that an accuracy could exceed 100 %.
        """
        loss, accuracy, count = self.trainer.strategy.reduce(self._totals, reduce_op="sum")
        split = "test" if self.trainer.testing else "val"
        self.log_dict({f"{split}/loss": loss / count, f"{split}/accuracy": 100 * accuracy / count}, prog_bar=True)

    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end

    def _answers(self, batch: Batch, answers: Tensor, logits: Tensor) -> BatchAnswers:
        sure = confidences(logits, self.temperature, self.objective.activation)
        return BatchAnswers(batch.positions, answers, sure.amax(dim=1))
