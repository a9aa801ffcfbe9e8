"""`run_avb.py` and `avb train`: the steps of a run, top to bottom."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avb_hf.cli.flags import FlagParser, split_recipe
from avb_hf.cli.system import PROPOSED, System
from avb_hf.data.arguments import DataArguments
from avb_hf.training.arguments import RunArguments

if TYPE_CHECKING:
    from datasets import DatasetDict

    from avb_hf.training.trainer import VocalBurstTrainer
    from avb_hf.training.training_arguments import VocalBurstTrainingArguments


def main(argv: list[str], system: System = PROPOSED) -> int:
    """Train, score and predict as the flags say.

    Args:
        argv: Arguments behind the program's name: a recipe, if any, and flags.
        system: What is trained.

    Returns:
        0; or 128 and the number of the signal that stopped the training.

    Raises:
        ValueError: If flags or data cannot be used.
    """
    if system.helps(argv):
        return 0
    from avb_hf.training.processes import leave, on_first
    from avb_hf.training.signals import StoppedBySignalError

    code = 0
    try:
        run(*parse(argv, system), system)
    except StoppedBySignalError as stop:
        text = f"{stop}; go on by --resume auto\n"
        on_first(lambda: sys.stdout.write(text))
        code = stop.exit_code
    leave()
    return code


def parse(
    argv: list[str], system: System = PROPOSED
) -> tuple[DataArguments, Any, RunArguments, VocalBurstTrainingArguments]:
    """Turn recipe and flags into arguments of data, model, run and training.

    Raises:
        ValueError: If a flag does not exist, or a value is not allowed.
    """
    parser = FlagParser([*system.flags, system.load()[0]], usage=system.usage)
    data, model_args, run_args, args = parser.parse(split_recipe(argv))
    run_args.resume = run_args.resume or args.resume_from_checkpoint
    return data, model_args, run_args, args


def run(
    data: DataArguments,
    model_args: Any,
    run_args: RunArguments,
    args: VocalBurstTrainingArguments,
    system: System = PROPOSED,
) -> None:
    """Check flags and data, build the model, and carry out the run, while no other run works in its folder.

    Raises:
        ValueError: If flags, data or folder cannot be used.
    """
    from avb_hf.training import processes, run_folder

    processes.require_world_size(args, run_args.expect_world_size)
    with run_folder.claimed(str(args.output_dir), run_args):
        _run(data, model_args, run_args, args, system)


def _run(
    data: DataArguments, model_args: Any, run_args: RunArguments, args: VocalBurstTrainingArguments, system: System
) -> None:
    from transformers import set_seed
    from transformers.utils.logging import disable_progress_bar

    from avb_hf.data.clips import ClipReader, require_samples
    from avb_hf.data.findings import Finding
    from avb_hf.data.sources import infer_task, load_corpus, splits_were_drawn
    from avb_hf.data.splits import subsample
    from avb_hf.training import hub, hub_resume, outcome, processes, run_folder, run_record
    from avb_hf.training.plan import describe_data, describe_plan, describe_run, rehearse
    from avb_hf.training.trainer import make_trainer

    disable_progress_bar()  # of single files that are read and written; training and data have bars of their own
    folder = Path(str(args.output_dir))
    repo = hub.check_push(args, run_args)
    hub_resume.resume_from_hub(run_args, folder, repo)
    checkpoint = run_folder.settle(folder, run_args, model_args, data)

    task = infer_task(data)
    outcome.check_contest_name(run_args.team_name, run_args.submission, task)
    skipped: list[Finding] = []
    corpus = load_corpus(task, dataclasses.replace(data, max_train_samples=None, max_eval_samples=None), skipped)
    splits = subsample(corpus, data.max_train_samples, data.max_eval_samples, data.split_seed)
    facts = describe_data(splits, skipped)
    processes.require_same_everywhere({"checkpoint": checkpoint, **facts["data"]})

    set_seed(args.seed)
    labels = splits["train"]["labels"][:] if args.do_train else None
    model, feature_extractor = system.load()[1](task, model_args, run_args, labels)
    require_samples(splits, model.config.min_samples, model.config.max_samples)
    splits = splits.with_transform(ClipReader(data, min_samples=model.config.min_samples))
    in_bf16 = run_folder.computed_in_bf16(folder, run_args.resume, checkpoint)
    trainer = make_trainer(model, feature_extractor, splits, task, run_args, args, in_bf16)
    trainer.say(describe_plan(trainer, facts["audio"], repo))
    if run_args.dry_run or run_args.estimate:
        trainer.say(rehearse(trainer, splits, run_args))
        return

    flags = [data, model_args, run_args, args]
    record = run_record.make_record(flags, describe_run(trainer) | facts, trainer.backbone_learning_rate)
    trainer.publish(task, record, repo, run_args.license)
    carry_out(trainer, splits, corpus if splits_were_drawn(data) else None, record, run_args, data, checkpoint)


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
    if done == "finished" and not trainer.may_push_result():
        done = "trained"  # a card is written from scores, so the model is scored again
    trainer.accelerator.wait_for_everyone()  # no process writes before all have checked the folder
    trainer.begin_push()
    if done == "finished":
        trainer.say(f"the run in {folder} is finished: nothing to do")
        trainer.push_to_hub()
        return
    if trainer.args.do_train and done == "new" and run_args.cache == "auto":
        # Before the folder is begun: where they cannot be kept, it stays as it was.
        splits = frozen.use_frozen_states(trainer, splits, data, run_args.cache_dtype)
    if trainer.is_world_process_zero() and done == "new":
        run_folder.begin(folder, record, drawn, run_args.overwrite, checkpoint)
    outcome.train(trainer, folder, checkpoint, is_trained=done == "trained")
    predictions = outcome.score_and_predict(trainer, splits, trainer.task)
    if trainer.is_world_process_zero():
        outcome.write_files(predictions, trainer.task, folder, run_args.team_name, run_args.submission)
        trainer.create_model_card()
        run_folder.seal_results(folder)
    trainer.say(f"what the run made is in {folder}; peak memory {peak_memory(trainer.args.device):.2f} GiB")
    trainer.push_to_hub()
