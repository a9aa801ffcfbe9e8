"""transformers' `TrainingArguments` with our defaults, and with what does not work here refused."""

import logging
import os
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.hf_argparser import HfArg
from transformers.trainer_utils import HubStrategy

from avb_hf.tasks import check_choice
from avb_hf.training.arguments import CommonArguments
from avb_hf.training.optimizer import OPTIMIZERS

logger = logging.getLogger(__name__)

ARGUMENTS_FILE = "training_args.json"

# Flag: (value that is refused, what to do instead).
REFUSED: dict[str, tuple[Any, str]] = {
    "train_sampling_strategy": ("group_by_length", "batches are made of clips of like length anyway: leave it out"),
    "fp16": (True, "its loss scaler leaves out steps that overflow, which a run here stops at: use --precision bf16"),
    "dataloader_drop_last": (True, "it would drop clips from the evaluation too: leave it out"),
    "prediction_loss_only": (True, "the headline score needs the predictions: leave it out"),
    "save_only_model": (True, "a run could not be resumed exactly: leave it out, and see --save_total_limit"),
    "auto_find_batch_size": (True, "the batch is part of what a run computes: see --estimate for its memory"),
    "remove_unused_columns": (True, "clips are read by column, so every column is used: leave it out"),
}
# What `torch.compile` takes here; modes with CUDA graphs would record one for each length of a batch.
COMPILE_BACKENDS = ("inductor", "aot_eager", "eager")
COMPILE_MODES = ("default", "max-autotune-no-cudagraphs")


@dataclass
class VocalBurstTrainingArguments(CommonArguments, TrainingArguments):
    """transformers' training arguments; see there. Defaults that differ are set here and in `CommonArguments`.

    Raises:
        ValueError: If a flag is given that does not work here; the message says what to do instead.
    """

    _argument_group_name = "all flags of transformers"

    output_dir: str | None = HfArg(default=None, help="folder for the model, scores and predictions (required)")
    weight_decay: float = HfArg(
        default=0.05, help="weight decay of all but biases and norms, decoupled (with --optim adam: L2)"
    )
    optim: str = HfArg(
        default=TrainingArguments.default_optim,
        help="an optimizer of transformers, or adam, which it has not: Adam with L2 weight decay",
    )
    lr_scheduler_type: str = HfArg(default="cosine", help="schedule of both learning rates")
    warmup_steps: float = HfArg(default=0.06, help="warm-up in steps, or below 1 as a share of all steps")
    eval_strategy: str = HfArg(default="epoch", help="when to score the validation split")
    save_strategy: str = HfArg(default="epoch", help="when to save a checkpoint")
    save_total_limit: int | None = HfArg(default=2, help="checkpoints kept, the best one included")
    load_best_model_at_end: bool = HfArg(default=True, help="keep the epoch with the best headline score")
    logging_strategy: str = HfArg(default="epoch", help="when to log the training loss")
    logging_nan_inf_filter: bool = HfArg(default=False, help="hide losses that are not finite; never a good idea")
    remove_unused_columns: bool = HfArg(default=False, help="must stay off: clips are decoded on the fly")
    restore_callback_states_from_checkpoint: bool = HfArg(default=True, help="early stopping survives a resume")
    ddp_timeout: int = HfArg(
        default=30 * 24 * 3600, help="seconds that processes wait for each other, as while the first one pushes"
    )
    ddp_find_unused_parameters: bool | None = HfArg(default=False, help="our models leave no parameter unused")

    def __post_init__(self) -> None:
        if self.output_dir is None:
            raise ValueError("--output_dir is required: the folder for the model, scores and predictions")
        if self.hub_token is not None:
            raise ValueError("--hub_token would end up in files: log in by `hf auth login` or set HF_TOKEN instead")
        for flag, (refused, instead) in REFUSED.items():
            if getattr(self, flag) == refused:
                raise ValueError(f"--{flag} {refused}: {instead}")
        for flag in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, flag) < 1:
                raise ValueError(f"--{flag} must be at least 1, got {getattr(self, flag)}")
        if self.label_smoothing_factor != 0:
            raise ValueError("--label_smoothing_factor has no effect on our losses: leave it out")
        check_choice("--hub_strategy", self.hub_strategy, tuple(strategy.value for strategy in HubStrategy))
        for flag in ("learning_rate", "num_train_epochs"):
            if not 0 <= getattr(self, flag) < float("inf"):
                raise ValueError(f"--{flag} must be a number of 0 or more, got {getattr(self, flag)}")
        steps = self._resolve_steps()
        if not self.do_train:
            self.eval_strategy = self.save_strategy = "no"
            self.load_best_model_at_end = False
        is_one_of_many = int(os.environ.get("WORLD_SIZE", "1")) > 1
        if (self.bf16 or self.bf16_full_eval or is_one_of_many) and not torch.accelerator.is_available():
            self.use_cpu = True  # unless that is said, transformers takes no bf16 there, and processes do not meet
        if self.hub_model_id is not None and not self.push_to_hub:
            logger.warning("--hub_model_id %s is where --push_to_hub would push: nothing is pushed", self.hub_model_id)
        hidden = self._hide_from_transformers()
        super().__post_init__()
        for name, value in hidden.items():
            setattr(self, name, value)
        if self.n_gpu > 1:
            logger.warning(
                "this is one process: it trains on one of %d GPUs; `accelerate launch --multi_gpu --num_processes %d "
                "run_avb.py ...` trains on all",
                self.n_gpu,
                self.n_gpu,
            )
            self._n_gpu = 1  # transformers would split each batch by DataParallel, and each part has another CCC
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type != "cpu"
        self.do_train, self.do_eval, self.do_predict = steps  # transformers turns do_eval on where it trains

    def _resolve_steps(self) -> tuple[bool, bool, bool]:
        """With no `--do_*` flag given, do everything; otherwise what was asked for."""
        given = (self.do_train, self.do_eval, self.do_predict)
        default = all(flag is None for flag in given)
        self.do_train, self.do_eval, self.do_predict = (default if flag is None else flag for flag in given)
        if not (self.do_train or self.do_eval or self.do_predict):
            raise ValueError("nothing to do: --do_train, --do_eval and --do_predict are all false")
        return self.do_train, self.do_eval, self.do_predict

    def _hide_from_transformers(self) -> dict[str, Any]:
        """Put flags aside that transformers would refuse, or turn TF32 on for, and return them."""
        hidden: dict[str, Any] = self._compiling()
        if self.optim in OPTIMIZERS:
            hidden["optim"] = self.optim
            self.optim = self.default_optim
        if hidden.get("torch_compile"):
            self.torch_compile, self.torch_compile_backend, self.torch_compile_mode = False, None, None
        return hidden

    def _compiling(self) -> dict[str, Any]:
        """Check and complete the flags of `torch.compile`; none where nothing is to be compiled."""
        if not self.torch_compile and self.torch_compile_backend is None and self.torch_compile_mode is None:
            return {}
        backend = self.torch_compile_backend or COMPILE_BACKENDS[0]
        mode = self.torch_compile_mode or COMPILE_MODES[0]
        check_choice("--torch_compile_backend", backend, COMPILE_BACKENDS)
        check_choice("--torch_compile_mode", mode, COMPILE_MODES)
        return {"torch_compile": True, "torch_compile_backend": backend, "torch_compile_mode": mode}
