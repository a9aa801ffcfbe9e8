"""A file of scores is whole or absent, and comes out the same however often the work was cut off."""

import errno
import json

import numpy as np
import pytest
import soundfile
import torch

import avb_hf.inference.predict as predict_module
from avb_hf.inference.journal import Journal
from avb_hf.inference.predict import predict_to_file
from avb_hf.inference.predict_arguments import PredictArguments
from avb_hf.inference.scorer import Scorer

pytestmark = pytest.mark.slow

RATE = 16_000
ARGS = PredictArguments(batch_size=2)


class Killed(BaseException):
    """Stands in for a process that ends."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    top = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number in range(15):
        soundfile.write(top / f"{number:02d}.wav", 0.1 * rng.standard_normal(int(rng.uniform(0.1, 0.5) * RATE)), RATE)
    (top / "07.wav").write_text("no audio")
    return top


@pytest.fixture
def score(make_model, folder, tmp_path):
    """Give a function that scores the folder into a file."""
    model, extractor = make_model(label_range=(0, 1))

    def run(name="scores.csv", args=ARGS, **more):
        return predict_to_file(model, folder, tmp_path / name, args, extractor, **more)

    run.model = model
    return run


@pytest.fixture
def scored_batches(monkeypatch):
    """Numbers of the batches that were scored; the next is killed where `kill_after` of them are done."""
    numbers, kill_after, original = [], [], Scorer.score

    def counted(self, batch):
        if kill_after and len(numbers) >= kill_after[0]:
            raise Killed
        numbers.append(batch.number)
        return original(self, batch)

    monkeypatch.setattr(Scorer, "score", counted)
    return numbers, kill_after


def test_work_that_was_cut_off_anywhere_goes_on_to_the_same_bytes(score, scored_batches, tmp_path):
    numbers, kill_after = scored_batches
    score("whole.csv")
    whole = (tmp_path / "whole.csv").read_bytes()
    assert numbers == list(range(8))
    for stops in ([0, 3, 5], [1, 2, 7], [4]):
        numbers.clear()
        for stop in stops:
            kill_after[:] = [stop]
            with pytest.raises(Killed):
                score()
            assert not (tmp_path / "scores.csv").exists()
        kill_after.clear()
        score()
        assert numbers == list(range(8))  # none is lost, none is done again
        assert (tmp_path / "scores.csv").read_bytes() == whole
        (tmp_path / "scores.csv").unlink()


def test_lines_that_were_torn_are_computed_again(score, scored_batches, tmp_path):
    numbers, kill_after = scored_batches
    score("whole.csv")
    kill_after[:] = [len(numbers) + 4]
    with pytest.raises(Killed):
        score()
    kill_after.clear()
    journal = tmp_path / "scores.csv.journal" / "batches-0.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    for damage in (lines[0] + lines[1] + lines[2][:-9], b"".join([*lines[:2], b"\0\0\0\n", *lines[3:]]), lines[0][:-1]):
        journal.write_bytes(damage)
        numbers.clear()
        score()
        assert numbers == list(range(8))[8 - len(numbers) :]
        assert len(numbers) == (8 if damage == lines[0][:-1] else 6)
        assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
        (tmp_path / "scores.csv").unlink()
        kill_after[:] = [len(numbers) + 4]
        with pytest.raises(Killed):
            score()
        kill_after.clear()


@pytest.mark.parametrize("name", ["write_scores", "write_json", "digest_file"])
def test_a_kill_while_the_file_is_written_does_no_harm(name, score, scored_batches, tmp_path, monkeypatch):
    import avb_hf.inference.job as job

    score("whole.csv")
    scored_batches[0].clear()
    with monkeypatch.context() as patched:
        original = getattr(job, name)

        def killed(path, *args):
            original(path, *args)
            raise Killed

        patched.setattr(job, name, killed)
        with pytest.raises(Killed):
            score()
    assert not (tmp_path / "scores.csv").exists()
    assert score().failed == 1
    assert scored_batches[0] == list(range(8))
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_kill_before_the_first_batch_leaves_nothing_in_the_way(score, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("avb_hf.inference.journal.write_json", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            score()
    assert score().clips == 15


def test_batches_are_fixed_at_the_first_start(score, scored_batches, tmp_path, monkeypatch):
    args, (_, kill_after) = PredictArguments(precision="auto"), scored_batches
    kill_after[:] = [0]
    with pytest.raises(Killed):
        score(args=args)
    kill_after.clear()
    fixed = json.loads((tmp_path / "scores.csv.journal" / "job.json").read_text())["choice"]

    def never(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(predict_module, "choose", never)
    monkeypatch.setattr(predict_module, "read_lengths", never)
    assert vars(score(args=args).choice) == fixed


def test_a_complete_file_is_recognised_in_any_kind(score, scored_batches, tmp_path):
    for name in ("scores.csv", "scores.jsonl", "scores.parquet"):
        first = score(name)
        content = (tmp_path / name).read_bytes()
        scored_batches[0].clear()
        for overwrite in (False, True):
            again = score(name, overwrite=overwrite)
            assert (again.was_complete, again.clips, again.failed) == (True, first.clips, first.failed)
        assert scored_batches[0] == []
        assert (tmp_path / name).read_bytes() == content
        assert "complete already" in again.describe()


def change_weights(score, folder):
    score.model.classifier.bias.data += 0.5


def change_config(score, folder):
    score.model.config.label_range = [0.0, 2.0]


def change_a_clip(score, folder):
    path = folder / "00.wav"
    soundfile.write(path, 0.2 * np.random.default_rng(9).standard_normal(5_000), RATE)


@pytest.mark.parametrize(
    ("change", "args", "word"),
    [
        (change_weights, ARGS, "checkpoint.sha256"),
        (change_config, ARGS, "checkpoint.sha256"),
        (change_a_clip, ARGS, "inputs.sha256"),
        (None, PredictArguments(batch_size=4), "options.batch_size: 2 is now 4"),
        (None, PredictArguments(batch_size=2, precision="bf16"), "options.precision: 'fp32' is now 'bf16'"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_another_job_is_refused_unless_overwritten(
    change, args, word, complete, score, scored_batches, folder, tmp_path
):
    if complete:
        score()
    else:
        scored_batches[1][:] = [2]
        with pytest.raises(Killed):
            score()
        scored_batches[1].clear()
    if change is not None:
        change(score, folder)
    with pytest.raises(ValueError, match=word):
        score(args=args)
    assert score(args=args, overwrite=True).was_complete is False
    score("expected.csv", args=args)
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_a_file_of_somebody_else_is_left_alone(score, tmp_path):
    (tmp_path / "scores.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"scores\.csv exists, and scores\.csv\.json.*does not"):
        score()
    assert (tmp_path / "scores.csv").read_text() == "mine"
    assert score(overwrite=True).clips == 15


def test_a_file_that_was_changed_is_not_taken_for_complete(score, tmp_path):
    score()
    content = (tmp_path / "scores.csv").read_bytes()
    (tmp_path / "scores.csv").write_bytes(content.replace(b"error", b"Error"))
    with pytest.raises(ValueError, match="is not as it was written"):
        score()
    score(overwrite=True)
    assert (tmp_path / "scores.csv").read_bytes() == content


def test_what_is_replaced_stays_until_the_new_one_is_there(score, scored_batches, tmp_path):
    score()
    old = (tmp_path / "scores.csv").read_bytes()
    change_weights(score, None)
    scored_batches[1][:] = [len(scored_batches[0]) + 2]
    with pytest.raises(Killed):
        score(overwrite=True)
    assert (tmp_path / "scores.csv").read_bytes() == old
    scored_batches[1].clear()
    scored_batches[0].clear()
    score(overwrite=True)
    assert scored_batches[0] == list(range(2, 8))
    assert (tmp_path / "scores.csv").read_bytes() != old


def test_clips_without_scores_are_named_by_the_first_20_of_them(score, folder, tmp_path, monkeypatch):
    assert [line.split(": ")[0] for line in score().bad] == [str(folder / "07.wav")]
    (tmp_path / "scores.csv").unlink()
    monkeypatch.setattr("avb_hf.inference.job.MAX_LISTED", 2)
    tail = sorted(folder.iterdir())[-3:]
    contents = [path.read_bytes() for path in tail]
    for path in tail:
        path.write_text("no audio")
    said = [score(overwrite=True).describe(), score().describe()]
    for path, content in zip(tail, contents, strict=True):
        path.write_bytes(content)
    for lines in (text.splitlines() for text in said):
        assert "15 clips, 4 of them without scores" in lines[0]
        assert lines[1].startswith(f"  {folder / '07.wav'}: cannot be decoded")
        assert lines[2].startswith(f"  {tail[0]}: ")
        assert lines[3:] == ["  ... and 2 more"]


def test_a_damaged_journal_is_named(score, scored_batches, tmp_path):
    scored_batches[1][:] = [2]
    with pytest.raises(Killed):
        score()
    (tmp_path / "scores.csv.journal" / "job.json").write_text("{")
    with pytest.raises(ValueError, match=r"job\.json is damaged"):
        score()


def test_two_processes_that_write_one_journal_are_noticed(score, scored_batches, tmp_path):
    scored_batches[1][:] = [2]
    with pytest.raises(Killed):
        score()
    scored_batches[1].clear()
    other = Journal(tmp_path / "scores.csv.journal")
    other.open(0)
    with pytest.raises(ValueError, match="another process works on it"):
        score()
    other.close()
    assert score().clips == 15


def test_a_second_call_is_refused_while_the_first_measures(score, tmp_path, monkeypatch):
    refused, choose = [], predict_module.choose

    def call_again(*args):
        with pytest.raises(ValueError, match="another process works on it"):
            score(overwrite=True)
        refused.append(True)
        return choose(*args)

    monkeypatch.setattr(predict_module, "choose", call_again)
    assert score().clips == 15
    assert refused == [True]
    assert not (tmp_path / "scores.csv.journal").exists()


def test_a_file_system_without_locks_is_no_other_process(score, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("avb_hf.folder_lock.fcntl.flock", flock)
    assert score().clips == 15


def test_a_refused_call_leaves_the_folder_of_the_first(tmp_path):
    journal = Journal(tmp_path / "scores.csv.journal")
    with journal.claimed():
        for _ in range(2):  # the first one must not open the way for the second
            with pytest.raises(ValueError, match="another process works on it"), journal.claimed():
                pass


# What lies where the journal, or the record beside the file, is to be written.
FOREIGN = {
    "a file": ("scores.csv.journal/thesis.tex", "years of work"),
    "a draft": ("scores.csv.journal/draft.txt", "of a letter"),
    "a folder": ("scores.csv.journal/batches-0.jsonl/notes", "mine"),
    "a job": ("scores.csv.journal/job.json", '{"title": "printing"}'),
    "a list": ("scores.csv.journal/job.json", "[1]"),
    "a record": ("scores.csv.json", '{"title": "mine"}'),
    "a record that is no JSON": ("scores.csv.json", "mine"),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_not_of_a_journal_is_neither_deleted_nor_written_over(what, overwrite, score, tmp_path):
    name, content = FOREIGN[what]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="choose another --output"):
        score(overwrite=overwrite)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == content


def test_a_record_of_ours_whose_file_is_gone_is_replaced(score, tmp_path):
    score()
    (tmp_path / "scores.csv").unlink()
    assert score(args=PredictArguments(batch_size=4)).clips == 15


def test_a_complete_file_leaves_the_work_on_another_job(score, scored_batches, tmp_path):
    score()
    numbers, kill_after = scored_batches
    kill_after[:] = [len(numbers) + 2]
    with pytest.raises(Killed):
        score(args=PredictArguments(batch_size=4), overwrite=True)
    kill_after.clear()
    assert score().was_complete
    numbers.clear()
    score(args=PredictArguments(batch_size=4), overwrite=True)
    assert numbers == [2, 3]


def test_a_file_may_be_called_like_a_part_of_the_journal(score, tmp_path):
    score("scores.jsonl")
    score("batches-0.jsonl")
    assert (tmp_path / "batches-0.jsonl").read_bytes() == (tmp_path / "scores.jsonl").read_bytes()


def test_other_conditions_are_told_and_go_on(score, scored_batches, tmp_path, caplog):
    scored_batches[1][:] = [2]
    with pytest.raises(Killed):
        score()
    scored_batches[1].clear()
    path = tmp_path / "scores.csv.journal" / "job.json"
    path.write_text(path.read_text().replace(f'"torch": "{torch.__version__}"', '"torch": "1.0"'))
    score()
    assert "made_with.torch: '1.0' is now" in caplog.text


def test_a_batch_that_no_process_did_is_named(score, scored_batches, monkeypatch):
    monkeypatch.setattr(Journal, "add", lambda *_: None)
    with pytest.raises(ValueError, match="lacks batch 0: do all processes see the same folder"):
        score()
