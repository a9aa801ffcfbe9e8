"""`run_avb.py` and `avb train`: the steps of a run, top to bottom."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avb_hf.cli.flags import FlagParser, print_help, split_recipe
from avb_hf.data.arguments import DataArguments
from avb_hf.training.arguments import CommonArguments, ModelArguments, RunArguments

if TYPE_CHECKING:
    from datasets import DatasetDict

    from avb_hf.training.trainer import VocalBurstTrainer
    from avb_hf.training.training_arguments import VocalBurstTrainingArguments

USAGE = "run_avb.py [recipe] [--flag value ...]"
OUR_GROUPS = [DataArguments, ModelArguments, RunArguments]


def main(argv: list[str]) -> int:
    """Train, score and predict as the flags say.

    Args:
        argv: Arguments behind the program's name: a recipe, if any, and flags.

    Returns:
        0; or 128 and the number of the signal that stopped the training.

    Raises:
        ValueError: If flags or data cannot be used.
    """
    if "-h" in argv or "--help" in argv:
        print_help([*OUR_GROUPS, CommonArguments], USAGE)
        return 0
    if "--help_all" in argv:
        from avb_hf.training.training_arguments import VocalBurstTrainingArguments

        print_help([*OUR_GROUPS, VocalBurstTrainingArguments], USAGE)
        return 0
    from avb_hf.training.processes import leave
    from avb_hf.training.signals import StoppedBySignalError

    code = 0
    try:
        run(*parse(argv))
    except StoppedBySignalError as stop:
        sys.stdout.write(f"{stop}; go on by --resume auto\n")
        code = stop.exit_code
    leave()
    return code


def parse(argv: list[str]) -> tuple[DataArguments, ModelArguments, RunArguments, VocalBurstTrainingArguments]:
    """Turn recipe and flags into arguments.

    Raises:
        ValueError: If a flag does not exist, or a value is not allowed.
    """
    from avb_hf.training.training_arguments import VocalBurstTrainingArguments

    parser = FlagParser([*OUR_GROUPS, VocalBurstTrainingArguments], usage=USAGE)
    data, model, run_args, training = parser.parse(split_recipe(argv))
    run_args.resume = run_args.resume or training.resume_from_checkpoint
    return data, model, run_args, training


def run(
    data: DataArguments, model_args: ModelArguments, run_args: RunArguments, args: VocalBurstTrainingArguments
) -> None:
    """Check flags and data, build the model, and carry out the run."""
    from transformers import set_seed
    from transformers.utils.logging import disable_progress_bar

    from avb_hf.data.clips import ClipReader, require_samples
    from avb_hf.data.findings import Finding
    from avb_hf.data.fingerprint import fingerprint
    from avb_hf.data.sources import infer_task, load_corpus, splits_were_drawn
    from avb_hf.data.splits import subsample
    from avb_hf.training import outcome, processes, run_folder
    from avb_hf.training.build import build_model
    from avb_hf.training.estimate import estimate_run
    from avb_hf.training.plan import describe, describe_plan, try_one_batch
    from avb_hf.training.trainer import make_trainer

    disable_progress_bar()  # of single files that are read and written; training and data have bars of their own
    processes.require_world_size(args, run_args.expect_world_size)
    folder = Path(str(args.output_dir))
    run_folder.check_output_dir(folder, run_args.resume, run_args.overwrite)
    checkpoint = run_folder.find_checkpoint(folder, run_args.resume)

    task = infer_task(data)
    outcome.check_contest_name(run_args.team_name, run_args.submission, task)
    skipped: list[Finding] = []
    corpus = load_corpus(task, dataclasses.replace(data, max_train_samples=None, max_eval_samples=None), skipped)
    splits = subsample(corpus, data.max_train_samples, data.max_eval_samples, data.split_seed)
    processes.require_same_everywhere({"checkpoint": checkpoint, **fingerprint(splits)})

    set_seed(args.seed)
    labels = splits["train"]["labels"][:] if args.do_train else None
    model, feature_extractor = build_model(task, model_args, run_args.freeze, labels, run_args.freeze_blocks)
    require_samples(splits, model.config.min_samples, model.config.max_samples)
    splits = splits.with_transform(ClipReader(data, min_samples=model.config.min_samples))
    in_bf16 = run_folder.computed_in_bf16(folder, run_args.resume, checkpoint)
    trainer = make_trainer(model, feature_extractor, splits, task, run_args, args, in_bf16)
    trainer.say(describe_plan(trainer, splits, task))
    if run_args.dry_run:
        trainer.say(try_one_batch(trainer, splits) + "\ndry run: nothing was written")
        return
    if run_args.estimate:
        trainer.say(estimate_run(trainer, splits, run_args) + "\nestimate: nothing was written")
        return

    flags = [data, model_args, run_args, args]
    record = run_folder.make_record(flags, describe(trainer, splits, skipped), trainer.backbone_learning_rate)
    drawn = corpus if splits_were_drawn(data) else None
    carry_out(trainer, splits, drawn, record, run_args, data, checkpoint)


def carry_out(
    trainer: VocalBurstTrainer,
    splits: DatasetDict,
    drawn: DatasetDict | None,
    record: dict[str, Any],
    run_args: RunArguments,
    data: DataArguments,
    checkpoint: str | None,
) -> None:
    """Do what is not done yet of a run that was checked: train, score, predict, write.

    Args:
        trainer: Holds model, task and training arguments.
        splits: The corpus, decoding its clips.
        drawn: The whole corpus, if its split was drawn.
        record: What makes the run.
        run_args: Our own flags of the run.
        data: How clips are read.
        checkpoint: Where to go on from, or None.
    """
    from avb_hf.training import frozen, outcome, run_folder
    from avb_hf.training.estimate import peak_memory

    folder = Path(trainer.args.output_dir)
    wanted = outcome.names_of_results(trainer, splits, run_args.team_name, run_args.submission)
    done = run_folder.how_far(folder, record, run_args, checkpoint, wanted)
    if done == "finished":
        trainer.say(f"the run in {folder} is finished: nothing to do")
        return
    trainer.accelerator.wait_for_everyone()  # no process writes before all have checked the folder
    if trainer.is_world_process_zero() and done == "new":
        run_folder.begin(folder, record, drawn, run_args.overwrite)
    if trainer.args.do_train and done == "new" and run_args.cache == "auto":
        splits = frozen.use_frozen_states(trainer, splits, data, run_args.cache_dtype)
    outcome.train(trainer, folder, checkpoint, is_trained=done == "trained")
    predictions = outcome.score_and_predict(trainer, splits, trainer.task)
    if trainer.is_world_process_zero():
        outcome.write_files(predictions, trainer.task, folder, run_args.team_name, run_args.submission)
        run_folder.seal_results(folder)
    trainer.say(f"what the run made is in {folder}; peak memory {peak_memory(trainer.args.device):.2f} GiB")
