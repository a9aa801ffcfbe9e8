"""`avb prepare`: every recording of a folder decoded, mixed, resampled, levelled and written, by several processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile
from tqdm.auto import tqdm

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import SAMPLING_RATE, AudioFileError, load_clip
from avb_hf.data.contents import file_stamp
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.path_tables import followed, write_with
from avb_hf.data.prepare.plan import RECORD, Step, make_plan
from avb_hf.data.prepare.record import begin, save
from avb_hf.data.prepare.report import PrepareReport, make_report
from avb_hf.tasks import check_choice
from avb_hf.whole_files import whole_file

_SAVE_EVERY = 10.0  # seconds; what was made since is made again after a kill
_NO_LIMIT = 1e6  # seconds
_PCM_16 = 32_768


def prepare(raw: str | Path, out: str | Path, args: PrepareArguments | None = None) -> PrepareReport:
    """Make a corpus of 16 kHz mono wav files of a folder of recordings.

    `RAW/a/b.mp3` becomes `OUT/a/b.wav`, mixed, resampled (soxr, high quality) and scaled so that its loudest sample is
    at `peak_db`; silence stays silence. All other files are copied as they are, so ids that are file names, label
    tables and split files hold for OUT as well. Only a table that names clips by path must be given as a manifest: its
    paths are made to fit, and where the paths were the File_IDs, they are kept in a column `File_ID`, to be read with
    `--id_column File_ID`.

    Files appear wholly or not at all. A second call with the same settings makes what is missing and what has changed
    in RAW, and ends with the same bytes as if there had been one. A recording that cannot be used is listed, and there
    is no file for it. A script that calls this with several workers needs `if __name__ == "__main__":`.

    Args:
        raw: The folder with the recordings; they are never touched.
        out: The folder for the prepared clips: new, empty, or of an earlier call. `prepare.json` in it records the
            settings and, for each file, its source, its duration in seconds and its gain in dB.
        args: How to prepare, and with how many processes.

    Returns:
        What was made, and what is wrong.

    Raises:
        ValueError: If a folder or table is unfit, OUT was made with other settings or holds files that are not ours.
        OSError: If a file cannot be copied or written, or a worker dies; what is done is kept.
    """
    started = saved = time.monotonic()
    args = args or PrepareArguments()
    check_choice("subtype", args.subtype, tuple(SUBTYPES))
    raw, out = followed(raw), followed(out)
    steps = make_plan(raw, out, args)
    with _goes_on(out / RECORD, out):
        record = begin(raw, out, steps, args)
    missing = [step for step in steps if record["files"][step.output]["result"] is None]
    bar = tqdm(total=len(missing), desc="preparing", unit="file", disable=None)
    made: list[str] = []
    try:
        with bar, closing(_make_all(missing, raw, out, args)) as results:
            for output, result in results:
                record["files"][output]["result"] = result
                made += [output] * ("error" not in result)
                bar.update()
                if time.monotonic() - saved > _SAVE_EVERY:
                    with _goes_on(out / RECORD, out):
                        save(out, record, made)
                    made, saved = [], time.monotonic()
    finally:
        with _goes_on(out / RECORD, out):
            save(out, record, made)
    return make_report(out, record, {step.output for step in missing}, time.monotonic() - started)


def _make_all(
    steps: Sequence[Step], raw: Path, out: Path, args: PrepareArguments
) -> Generator[tuple[str, dict[str, Any]], None, None]:
    workers = min(args.num_workers or os.cpu_count() or 1, len(steps))
    if workers <= 1:
        yield from ((step.output, _make(step, raw, out, args)) for step in steps)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin_worker)
    try:
        with _interrupts_held():
            outputs = {pool.submit(_make, step, raw, out, args): step.output for step in steps}
        for future in as_completed(outputs):
            yield outputs[future], future.result()
    except BrokenProcessPool as error:
        raise OSError(f"a worker process died, for want of memory? The same call goes on ({error})") from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _goes_on(path: Path, out: Path) -> Iterator[None]:
    """Say of an error of the system, such as a full disk, which file it stopped and that nothing is lost."""
    try:
        yield
    except OSError as error:
        kept = f"what is done in OUT {out} is kept, and the same call goes on"
        raise OSError(f"{path} cannot be made: {error}; {kept}") from error


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back Ctrl-C, also in processes that are started here: those are ended by the main one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker() -> None:
    logging.getLogger("avb_hf").setLevel(logging.ERROR)  # silent clips are in the report
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # it was killed; no executor would ever end this process


def _make(step: Step, raw: Path, out: Path, args: PrepareArguments) -> dict[str, Any]:
    source, target = raw / step.source, out / step.output
    try:
        with _goes_on(target, out):
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(target, durable=False) as draft:  # `save` waits for many of them at once
                facts = MAKERS[step.kind](source, draft, step, args)
                if file_stamp(source) != (step.bytes, step.mtime_ns):
                    raise AudioFileError(step.source, source, "was changed while it was read")
                return {"size": draft.stat().st_size} | facts
    except AudioFileError as error:
        return {"error": error.reason}


def _make_clip(source: Path, target: Path, step: Step, args: PrepareArguments) -> dict[str, Any]:
    data_args = DataArguments(channels=args.channels, max_duration=_NO_LIMIT)
    clip = load_clip(source, step.source, data_args, min_samples=1)
    loudest = float(np.abs(clip).max())
    gain = 1.0 if args.keep_level or not loudest else 10 ** (args.peak_db / 20) / loudest
    samples, num_clipped = SUBTYPES[args.subtype](clip.astype(np.float64) * gain)
    # Not soundfile: libsndfile stamps float files with the time of writing.
    wavfile.write(target, SAMPLING_RATE, samples)
    facts: dict[str, Any] = {"duration": len(clip) / SAMPLING_RATE, "gain_db": round(20 * float(np.log10(gain)), 3)}
    if not loudest:
        facts["warning"] = "is silent"
    elif num_clipped:
        facts["warning"] = f"is clipped: {num_clipped} samples were above full scale"
    return facts


def _make_copy(source: Path, target: Path, step: Step, args: PrepareArguments) -> dict[str, Any]:
    shutil.copyfile(source, target)
    return {"warning": step.warning} if step.warning else {}


def _make_table(source: Path, target: Path, step: Step, args: PrepareArguments) -> dict[str, Any]:
    write_with(source, target, step.columns)
    return {}


MAKERS: dict[str, Callable[[Path, Path, Step, PrepareArguments], dict[str, Any]]] = {
    "clip": _make_clip,
    "copy": _make_copy,
    "table": _make_table,
}


def _to_pcm_16(clip: np.ndarray) -> tuple[np.ndarray, int]:
    levels = np.rint(clip * _PCM_16)
    limited = levels.clip(-_PCM_16, _PCM_16 - 1)
    num_clipped = int((np.abs(levels - limited) > 1).sum())  # full scale itself is one level too high
    return limited.astype(np.int16), num_clipped


def _to_float(clip: np.ndarray) -> tuple[np.ndarray, int]:
    return clip.astype(np.float32), 0


# Samples as they are written, and how many of them were clipped.
SUBTYPES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, int]]] = {"PCM_16": _to_pcm_16, "FLOAT": _to_float}
