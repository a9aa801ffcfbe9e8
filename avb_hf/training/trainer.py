"""transformers' Trainer, thinly adapted: our loss, two learning rates, clips by length."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    SequenceFeatureExtractor,
)
from transformers.trainer_utils import EvalLoopOutput

from avb_hf.data.collator import VocalBurstCollator
from avb_hf.evaluation.metrics import METRICS
from avb_hf.tasks import TaskSpec
from avb_hf.training.activation_checkpointing import checkpoint_activations
from avb_hf.training.arguments import CccScope, RunArguments
from avb_hf.training.compiled import compile_blocks
from avb_hf.training.exact import EffectiveBatch, require_uncut_batches
from avb_hf.training.finite import FiniteGradients
from avb_hf.training.loader import EpochDataLoader, ProcessBatchSampler
from avb_hf.training.lora import is_adapted
from avb_hf.training.optimizer import OPTIMIZERS, parameter_groups
from avb_hf.training.precision import collate, read_frozen, settle_precision, typical_clips
from avb_hf.training.processes import raise_everywhere
from avb_hf.training.progress import Bars, EpochLine, HeadlineMustExist
from avb_hf.training.publishing_trainer import PublishingTrainer
from avb_hf.training.sampler import EpochLengthSampler, longest_first
from avb_hf.training.training_arguments import VocalBurstTrainingArguments

HEAD_TO_BACKBONE = 0.1
# Clips that tell a CPU's precision; on a GPU so few would time the launching of kernels.
TIMED_CLIPS = 4


class VocalBurstTrainer(PublishingTrainer):
    """A Trainer for `Wav2Vec2ForVocalBurst`.

    Args:
        task: What the model predicts; gives the headline score by which the best epoch is chosen.
        backbone_learning_rate: Learning rate of the backbone; None is a tenth of `args.learning_rate`, the head's, and
            all of it for adapters.
        args: Training arguments.
        length_pool: Batches that are cut from one pool of clips sorted by length.
        ccc_scope: `batch` makes one loss of an optimizer step, over accumulated batches and processes; `micro` averages
            the losses of its parts, which for the CCC is another loss.
        decay_all: Whether biases and norms decay too.
        **kwargs: Passed on to transformers' Trainer.
    """

    # The parts that `compute_loss` returns add up over an optimizer step: transformers must not divide them.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        task: TaskSpec,
        args: VocalBurstTrainingArguments,
        backbone_learning_rate: float | None = None,
        length_pool: int = 50,
        ccc_scope: CccScope = "batch",
        decay_all: bool = False,
        **kwargs: Any,
    ) -> None:
        self.task = task
        if backbone_learning_rate is None:
            # Adapters start from nothing, as the head does.
            share = 1.0 if is_adapted(kwargs.get("model")) else HEAD_TO_BACKBONE
            backbone_learning_rate = share * args.learning_rate
        self.backbone_learning_rate = backbone_learning_rate
        self.length_pool, self.ccc_scope, self.decay_all = length_pool, ccc_scope, decay_all
        self._step: EffectiveBatch | None = None
        self._clips_of_step: list[str] = []
        self._norm_of_step = 0.0
        if args.metric_for_best_model not in (None, "loss", task.metric, task.headline):
            raise ValueError(f"the best epoch is chosen by {task.headline}, got {args.metric_for_best_model!r}")
        args.metric_for_best_model, args.greater_is_better = task.headline, True
        super().__init__(args=args, compute_metrics=self._compute_metrics, **kwargs)
        self.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
        if not args.disable_tqdm:
            self.add_callback(Bars())
        self.add_callback(EpochLine(task.headline))
        self.add_callback(HeadlineMustExist(task.headline))
        self.add_callback(FiniteGradients(lambda: self._clips_of_step, lambda: self._norm_of_step))

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | int | None]:
        """Take the batches of the next optimizer step, which make one loss.

        Raises:
            BadBatchError: On every process, if a clip cannot be read on any.
        """
        batches, count, problem, cause = [], None, None, None
        try:
            batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        except (ValueError, RuntimeError) as error:  # a loader's worker turns errors of ours into RuntimeErrors
            problem, cause = f"step {self.state.global_step + 1}: {str(error).strip().splitlines()[-1]}", error
        try:
            raise_everywhere(problem, device)
        except ValueError as error:
            raise error from cause
        model = self.accelerator.unwrap_model(self.model_wrapped)
        self._clips_of_step = [file_id for batch in batches for file_id in getattr(batch, "file_ids", ())]
        self._step = EffectiveBatch(batches, model, partial(_scores, self.model_wrapped))
        return batches, count

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Compute a batch's part of the loss of its optimizer step; outside training, the loss of the batch."""
        if model.training and self._step is not None and self.ccc_scope == "batch":
            return self._step.part_of_loss(inputs)
        logits = _scores(model, inputs)
        loss = self.accelerator.unwrap_model(model).compute_loss(logits, inputs["labels"])
        if model.training:
            loss = loss / self.current_gradient_accumulation_steps
        return (loss, {"loss": loss, "logits": logits}) if return_outputs else loss

    @property
    def precision(self) -> str:
        """In what the forward pass is computed: `float32` or `bfloat16`."""
        return "bfloat16" if self.args.bf16 else "float32"

    def autocast(self) -> torch.autocast:
        """Return a context in which a forward pass is computed as in training."""
        dtype = getattr(torch, self.precision)
        return torch.autocast(self.args.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        """Keep the norm before clipping for the check that it is finite: clipping turns an infinite one into zeros."""
        self._norm_of_step = float(super()._get_grad_norm(model, grad_norm=grad_norm))
        return self._norm_of_step

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Take the longest clips first, so that batches have little padding, and return all in the dataset's order."""
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        back = np.argsort(longest_first(dataloader.dataset))
        labels = None if output.label_ids is None else output.label_ids[back]
        return output._replace(predictions=output.predictions[back], label_ids=labels)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> list[int]:
        return longest_first(eval_dataset)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor | None, Tensor | None]:
        """Predict a batch; leave the loss out, because a mean of batches' CCC losses is no score of the split."""
        _, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        return None, logits, labels

    @staticmethod
    def get_optimizer_cls_and_kwargs(
        args: VocalBurstTrainingArguments, model: PreTrainedModel | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Return class and options of the optimizer that the arguments name, ours or one of transformers."""
        if args.optim not in OPTIMIZERS:
            return PublishingTrainer.get_optimizer_cls_and_kwargs(args, model)
        betas = (args.adam_beta1, args.adam_beta2)
        return OPTIMIZERS[args.optim], {"lr": args.learning_rate, "betas": betas, "eps": args.adam_epsilon}

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Name the parameters that decay: all but biases and norms, or all."""
        if self.decay_all:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer, with one learning rate for the head and one for the backbone."""
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            groups = parameter_groups(
                model,
                self.get_decay_parameter_names(model),
                self.args.learning_rate,
                self.backbone_learning_rate,
                self.args.weight_decay,
            )
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def get_train_dataloader(self) -> EpochDataLoader:
        """Make the loader of this process's training batches."""
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        durations = self.train_dataset.with_format(None)["duration"][:]
        effective = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        order = EpochLengthSampler(durations, effective, seed, self.length_pool)
        batches = ProcessBatchSampler(
            order, args.train_batch_size, args.gradient_accumulation_steps, args.world_size, args.process_index
        )
        return EpochDataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def _compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        return METRICS[self.task.metric](prediction.predictions, prediction.label_ids, self.task)


def _scores(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(**{name: value for name, value in batch.items() if name != "labels"}).logits


def make_trainer(
    model: PreTrainedModel,
    feature_extractor: SequenceFeatureExtractor,
    splits: DatasetDict,
    task: TaskSpec,
    run_args: RunArguments,
    args: VocalBurstTrainingArguments,
    computes_in_bf16: bool | None = None,
) -> VocalBurstTrainer:
    """Put model, data and flags together.

    Args:
        model: A `Wav2Vec2ForVocalBurst`.
        feature_extractor: Its feature extractor.
        splits: Splits whose rows are decoded by a `ClipReader`.
        task: What the model predicts.
        run_args: Our own flags of the run.
        args: Training arguments.
        computes_in_bf16: Whether the run that is resumed does; None for a new run.

    Raises:
        ValueError: If a run without evaluations is to stop early, two precisions are asked for, batches are to be cut
            that must not be, or what is asked to be compiled cannot be.
    """
    if args.do_train:
        require_uncut_batches(model, args.gradient_accumulation_steps, args.world_size)
    patience = run_args.early_stopping_patience
    if patience is not None and args.do_train and args.eval_strategy == "no":
        raise ValueError("--early_stopping_patience needs evaluations, got --eval_strategy no")
    if run_args.dry_run or run_args.estimate:
        args.output_dir = tempfile.gettempdir()  # transformers makes this folder
    # Both before the precision is timed, and before anything is tried or estimated: of what will run.
    if args.activation_checkpointing:
        checkpoint_activations(model, args.activation_checkpointing_kwargs)
    if args.torch_compile:
        compile_blocks(model, str(args.torch_compile_backend), args.torch_compile_mode, args.device)
    collator = VocalBurstCollator(feature_extractor, task)

    def make_batch() -> dict[str, Tensor]:
        most = TIMED_CLIPS if args.device.type == "cpu" else args.train_batch_size
        clips = typical_clips(splits["train"], min(args.train_batch_size, most))
        batch = collate(splits["train"], clips, collator, model.device)
        return batch if model.frozen_blocks is None or run_args.cache == "off" else read_frozen(model, batch)

    seconds = settle_precision(args, run_args.precision, computes_in_bf16, model, make_batch)
    trainer = VocalBurstTrainer(
        task=task,
        args=args,
        backbone_learning_rate=run_args.backbone_learning_rate,
        length_pool=run_args.length_pool,
        ccc_scope=run_args.ccc_scope,
        decay_all=run_args.decay_all,
        model=model,
        processing_class=feature_extractor,
        data_collator=collator,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        callbacks=[] if patience is None else [EarlyStoppingCallback(patience)],
    )
    trainer.runtimes["precision_runtime"] = round(seconds, 4)
    return trainer
