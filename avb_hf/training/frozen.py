"""What is frozen is computed once: states of all clips, made or found before training, and read in place of audio."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from typing import TYPE_CHECKING, Any

import soxr
import torch
import transformers
from datasets import Dataset, DatasetDict
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from avb_hf.data.arguments import DataArguments
from avb_hf.model import Wav2Vec2ForVocalBurst
from avb_hf.training.arguments import CacheDtype
from avb_hf.training.exact import RandomState, num_processes
from avb_hf.training.processes import of_all_processes, on_first
from avb_hf.training.state_cache import ClipStamp, Entry, StateCache, states_folder

if TYPE_CHECKING:
    from avb_hf.training.trainer import VocalBurstTrainer
    from avb_hf.training.training_arguments import VocalBurstTrainingArguments

logger = logging.getLogger(__name__)

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SHARD_CLIPS = 128
# How clips are read, of all data flags: what the states depend on.
READING = ("channels", "max_duration", "long_clips", "trim_db")
# Fields of a backbone's configuration that frozen states do not depend on.
INDIFFERENT = {
    "num_hidden_layers", "encoder_layers", "_name_or_path", "architectures", "transformers_version", "dtype",
    "torch_dtype", "hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "dropout",
}  # fmt: skip


class StateReader:
    """Reads the cached states of a batch's clips; for `Dataset.with_transform`, in place of a `ClipReader`.

    Args:
        cache: Holds the states.
        entries: Entry of each clip by path.
    """

    def __init__(self, cache: StateCache, entries: dict[str, Entry]) -> None:
        self.cache, self.entries = cache, entries

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Add `frozen_states`, float32 of shape `(frames, width)` for each row, to the batch's columns."""
        return batch | {"frozen_states": [self.cache.load(self.entries[path]).float() for path in batch["path"]]}


def facts_of(trainer: VocalBurstTrainer, data: DataArguments, dtype: CacheDtype) -> dict[str, Any]:
    """Collect all that frozen states depend on besides the audio.

    Args:
        trainer: Holds a model of which something is frozen, and its feature extractor.
        data: How clips are read.
        dtype: How states are stored.
    """
    model = trainer.model
    encoder = {name: value for name, value in model.config.encoder_config.to_dict().items() if name not in INDIFFERENT}
    return {
        "format": 1,
        "weights": _digest_weights(model),
        "block": model.frozen_blocks,
        "encoder": encoder,
        "attention": model.config._attn_implementation,
        "masked_group_norm": model.config.masked_group_norm,
        "do_normalize": trainer.processing_class.do_normalize,
        "reading": {name: getattr(data, name) for name in READING},
        "device": model.device.type,
        "precision": trainer.precision,
        "dtype": dtype,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "soxr": soxr.__version__},
    }


def use_frozen_states(
    trainer: VocalBurstTrainer, splits: DatasetDict, data: DataArguments, dtype: CacheDtype
) -> DatasetDict:
    """Make the frozen states of all clips that will be read, unless they are cached, and read them instead of audio.

    All processes share the work. States are made under the precision that the training has, so a cached run is equal to
    one that computes them in every step: on a CPU bit for bit if `dtype` is float32.

    Args:
        trainer: Holds the model; of its data those splits that are read again and again are replaced.
        splits: Splits whose rows are decoded by a `ClipReader`.
        data: How clips are read.
        dtype: How states are stored.

    Returns:
        The splits, reading states.

    Raises:
        ValueError: If the cache cannot be written, the disk is too small, a clip has changed while it was read, or a
            process does not find what another has made.
    """
    if trainer.model.frozen_blocks is None:
        return splits
    began = time.perf_counter()
    cache = StateCache(facts_of(trainer, data, dtype))
    read = {name: split for name, split in splits.items() if is_read(name, trainer.args)}
    paths = list(dict.fromkeys(path for split in read.values() for path in split.with_format(None)["path"]))
    entries = cache.find(paths)
    made = set.intersection(*map(set, of_all_processes(list(entries))))  # so that all deal out the same work
    if len(made) < len(paths):
        before = RandomState.now()  # a loader draws a seed, and a run must not depend on what it found
        missing = {name: _find_missing(split, made) for name, split in read.items()}
        on_first(lambda: _announce(trainer, read, missing, cache, DTYPES[dtype]))
        for name, split in read.items():
            _fill(trainer, split, missing[name], cache, DTYPES[dtype])
        before.restore()
        trainer.accelerator.wait_for_everyone()
        entries |= cache.find([path for path in paths if path not in entries])
        lost = [path for path in paths if path not in entries]
        if lost:
            raise ValueError(
                f"{cache.folder} lacks the states of {len(lost)} clips that were just made, as of {lost[0]}: all "
                "processes must see the same folder (AVB_HF_CACHE), or leave states out by --cache off"
            )
    logger.info("frozen states of %d clips are in %s", len(entries), cache.folder)
    reader = StateReader(cache, entries)
    splits = DatasetDict(splits | {name: split.with_transform(reader) for name, split in read.items()})
    trainer.train_dataset, trainer.eval_dataset = splits["train"], splits["validation"]
    trainer.runtimes["cache_runtime"] = round(time.perf_counter() - began, 4)
    return splits


def is_read(split: str, args: VocalBurstTrainingArguments) -> bool:
    """Tell whether a run that trains reads a split.

    Args:
        split: Its name.
        args: The run's training arguments.
    """
    is_validated = bool(args.do_eval) or args.eval_strategy != "no"
    return {"train": True, "validation": is_validated, "test": bool(args.do_predict)}[split]


def _find_missing(split: Dataset, made: set[str]) -> list[int]:
    """Return the rows of a split whose states are missing, clips of like length together, the longest last."""
    plain = split.with_format(None)
    paths, durations = plain["path"][:], plain["duration"][:]
    return sorted((i for i, path in enumerate(paths) if path not in made), key=lambda i: (durations[i], paths[i]))


def _fill(
    trainer: VocalBurstTrainer, split: Dataset, missing: list[int], cache: StateCache, dtype: torch.dtype
) -> None:
    """Make this process's share of a split's states that are missing."""
    paths = split.with_format(None)["path"][:]
    shards = [missing[start : start + SHARD_CLIPS] for start in range(0, len(missing), SHARD_CLIPS)]
    own = shards[trainer.args.process_index :: num_processes()]
    with tqdm(total=sum(map(len, own)), desc="making frozen states", unit="clip", disable=None) as bar:
        for shard in own:
            stamps = [ClipStamp.of(paths[index]).with_digest() for index in shard]  # before the clips are read
            loader = DataLoader(
                split.select(shard).remove_columns("labels"),
                batch_size=trainer.args.eval_batch_size,
                collate_fn=trainer.data_collator,
                num_workers=trainer.args.dataloader_num_workers,
            )
            states = [_as_stored(clip, dtype) for batch in loader for clip in run_frozen(trainer, batch)]
            cache.write(list(zip(stamps, states, strict=True)))
            bar.update(len(shard))


def run_frozen(trainer: VocalBurstTrainer, batch: dict[str, Tensor]) -> list[Tensor]:
    """Return the frozen states of each clip of a batch, `(frames, width)`, on the CPU."""
    model = trainer.model
    with trainer.autocast():
        states, num_frames = model.run_frozen(
            batch["input_values"].to(model.device), batch["attention_mask"].to(model.device)
        )
    return [clip[:count].cpu() for clip, count in zip(states, num_frames.tolist(), strict=True)]


def _as_stored(states: Tensor, dtype: torch.dtype) -> Tensor:
    stored = states.to(dtype)
    if stored.isinf().any():
        name = str(dtype).removeprefix("torch.")
        raise ValueError(f"--cache_dtype {name} cannot hold states of up to {states.abs().max():g}: choose bfloat16")
    return stored


def _announce(
    trainer: VocalBurstTrainer,
    splits: dict[str, Dataset],
    missing: dict[str, list[int]],
    cache: StateCache,
    dtype: torch.dtype,
) -> None:
    """Tell, by the states of the longest clip, how large the missing ones of all splits are, before they are written.

    Raises:
        ValueError: If the cache cannot be written, or the disk has less room.
    """
    durations = {name: split.with_format(None)["duration"][:] for name, split in splits.items()}
    clips = [(durations[name][row], name, row) for name, rows in missing.items() for row in rows]
    seconds, (longest, name, row) = sum(duration for duration, *_ in clips), max(clips)
    (states,) = run_frozen(trainer, trainer.data_collator([splits[name].remove_columns("labels")[row]]))
    size = seconds * states.numel() * dtype.itemsize / longest
    cache.make_folder()
    free = shutil.disk_usage(cache.folder).free
    logger.info(
        "frozen states of %.2f h: %.2f GB to be written to %s, %.1f GB are free",
        seconds / 3600, size / 1e9, cache.folder, free / 1e9,
    )  # fmt: skip
    if size > 0.95 * free:
        raise ValueError(
            f"the frozen states take {size / 1e9:.2f} GB, but {states_folder()} has room for {free / 1e9:.2f} GB: "
            "choose --cache_dtype float16, another folder by AVB_HF_CACHE, or --cache off"
        )


def _digest_weights(model: Wav2Vec2ForVocalBurst) -> str:
    modules = model.encoder.modules_up_to(model.frozen_blocks)
    frozen = {id(value) for module in modules for value in (*module.parameters(), *module.buffers())}
    digest = hashlib.sha256()
    for name, value in sorted((*model.named_parameters(), *model.named_buffers())):
        if id(value) in frozen:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
