import csv
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from avb_hf.data.audio import AudioFileError
from avb_hf.inference import scorer
from avb_hf.inference.batch_plan import BatchPlan
from avb_hf.inference.clip_list import list_clips
from avb_hf.inference.clip_scorer import NOT_FINITE
from avb_hf.inference.predict import predict, predict_to_file
from avb_hf.inference.predict_arguments import PredictArguments
from avb_hf.inference.scorer import Scorer

RATE = 16_000
READERS = {
    ".csv": pd.read_csv,
    ".jsonl": lambda path: pd.read_json(path, lines=True),
    ".parquet": pd.read_parquet,
}


def write(path, seconds, seed=0, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate)), rate)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty-three clips of 0.1 s to 0.8 s, their lengths in no order."""
    top = tmp_path_factory.mktemp("clips")
    for number in range(23):
        write(top / f"{number % 3}" / f"{number:02d}.wav", 0.1 + 0.03 * ((7 * number) % 23), seed=number)
    (top / "notes.txt").write_text("no audio")
    return top


@pytest.fixture
def bad_folder(folder, tmp_path):
    """The same, with three files that are no clips."""
    shutil.copytree(folder, tmp_path / "bad")
    (tmp_path / "bad" / "0" / "empty.wav").touch()
    (tmp_path / "bad" / "1" / "text.mp3").write_text("no audio")
    write(tmp_path / "bad" / "2" / "short.wav", 0.001)
    return tmp_path / "bad"


@pytest.fixture(params=[{"label_range": (0, 1)}, {"problem_type": "single_label_classification"}], ids=str)
def any_model(request, make_model):
    return make_model(**request.param)


@pytest.fixture
def model(make_model):
    return make_model(label_range=(0, 1))


def alone(model, extractor, path):
    """Scores of one file by the plain model."""
    with torch.no_grad():
        logits = model(**extractor(soundfile.read(path, dtype="float32")[0], return_tensors="pt")).logits[0]
    return logits if model.config.problem_type == "regression" else logits.softmax(dim=0)


def names(plan_or_rows):
    return [row["file"] for row in plan_or_rows]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_scores_are_those_of_the_model_alone_in_the_order_of_the_paths(batch_size, any_model, folder):
    model, extractor = any_model
    rows = list(predict(model, folder, PredictArguments(batch_size=batch_size), extractor))
    files = sorted(folder.rglob("*.wav"))
    assert names(rows) == [str(path) for path in files]
    for row, path in zip(rows, files, strict=True):
        assert list(row) == ["file", *model.config.label_names, "error"]
        assert row["error"] is None
        scores = torch.tensor([row[label] for label in model.config.label_names])
        torch.testing.assert_close(scores, alone(model, extractor, path), rtol=0, atol=1e-5)


def test_a_checkpoint_scores_like_its_model(model, folder, tmp_path):
    for part in model:
        part.save_pretrained(tmp_path)
    args = PredictArguments(batch_size=3)
    assert list(predict(str(tmp_path), folder, args)) == list(predict(model[0], folder, args, model[1]))


def test_windows_come_one_after_the_other(model, folder, monkeypatch):
    args = PredictArguments(batch_size=3)
    whole = pd.DataFrame(predict(model[0], folder, args, model[1])).set_index("file")
    monkeypatch.setattr(BatchPlan.__init__, "__defaults__", (None, 5))
    parts = pd.DataFrame(predict(model[0], folder, args, model[1])).set_index("file")
    assert list(parts.index) == list(whole.index)
    np.testing.assert_allclose(parts.iloc[:, :-1], whole.iloc[:, :-1], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", READERS)
def test_each_kind_of_file_holds_the_same(suffix, model, bad_folder, tmp_path):
    args, output = PredictArguments(batch_size=4), tmp_path / f"scores{suffix}"
    report = predict_to_file(model[0], [bad_folder], output, args, model[1])
    assert (report.clips, report.failed, report.was_complete) == (26, 3, False)
    seconds = sum(soundfile.info(path).duration for path in bad_folder.rglob("[0-9][0-9].wav"))
    assert report.audio_seconds == pytest.approx(seconds)
    table = READERS[suffix](output)
    expected = list(predict(model[0], bad_folder, args, model[1]))
    assert list(table.columns) == list(expected[0])
    for found, row in zip(table.to_dict("records"), expected, strict=True):
        assert found["file"] == row["file"]
        assert (None if pd.isna(found["error"]) else found["error"]) == row["error"]
        for label in model[0].config.label_names:
            if row[label] is None:
                assert pd.isna(found[label])
            else:
                assert np.float32(found[label]) == np.float32(row[label])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", output.name, f"{output.name}.json"]


def test_cells_of_csv_and_jsonl_that_have_no_value_are_empty(model, bad_folder, tmp_path):
    for suffix in (".csv", ".jsonl"):
        predict_to_file(model[0], bad_folder, tmp_path / f"scores{suffix}", PredictArguments(batch_size=4), model[1])
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    lines = {row["file"]: row for row in map(json.loads, (tmp_path / "scores.jsonl").read_text().splitlines())}
    assert list(rows) == list(lines)
    bad = str(bad_folder / "0" / "empty.wav")
    assert list(rows[bad].values()) == [bad, "", "", "", "is empty: 0 bytes"]
    assert list(lines[bad].values()) == [bad, None, None, None, "is empty: 0 bytes"]
    good = str(bad_folder / "0" / "00.wav")
    assert (rows[good]["error"], lines[good]["error"]) == ("", None)


def test_a_bad_clip_changes_no_other_and_says_why(model, bad_folder, folder):
    args = PredictArguments(batch_size=4)
    rows = {os.path.relpath(row.pop("file"), bad_folder): row for row in predict(model[0], bad_folder, args, model[1])}
    errors = {name: row["error"] for name, row in rows.items() if row["error"]}
    assert set(errors) == {"0/empty.wav", "1/text.mp3", "2/short.wav"}
    assert "cannot be decoded" in errors["1/text.mp3"]
    assert "too short" in errors["2/short.wav"]
    for path in folder.rglob("*.wav"):
        scores = list(rows[str(path.relative_to(folder))].values())[:-1]
        torch.testing.assert_close(torch.tensor(scores), alone(*model, path), rtol=0, atol=1e-5)


def test_a_bad_clip_is_an_error_if_asked(model, bad_folder, tmp_path):
    args = PredictArguments(batch_size=4, on_bad_audio="error")
    with pytest.raises(AudioFileError, match=r"0/empty\.wav.*0 bytes"):
        predict_to_file(model[0], bad_folder, tmp_path / "scores.csv", args, model[1])
    assert not (tmp_path / "scores.csv").exists()


def test_damage_behind_a_good_header_is_an_error_if_asked(model, folder, tmp_path):
    samples = np.zeros(RATE, dtype=np.float32)
    samples[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    rows = list(predict(model[0], [tmp_path], PredictArguments(batch_size=4), model[1]))
    assert [row["error"] for row in rows] == ["holds NaN or infinite samples"]
    with pytest.raises(AudioFileError, match=r"nan\.wav"):
        list(predict(model[0], [tmp_path], PredictArguments(batch_size=4, on_bad_audio="error"), model[1]))


def test_scores_that_are_not_finite_are_no_scores(model, folder):
    model[0].classifier.bias.data.fill_(torch.nan)
    assert {row["error"] for row in predict(model[0], folder, PredictArguments(batch_size=8), model[1])} == {NOT_FINITE}


def test_clips_are_read_as_told(model, tmp_path):
    long, stereo = write(tmp_path / "a.wav", 1.5), tmp_path / "b.wav"
    soundfile.write(stereo, np.random.default_rng(1).uniform(-0.3, 0.3, (RATE, 2)), RATE)
    args = PredictArguments(batch_size=1, max_duration=1.0, long_clips="crop", channels="first")
    rows = [list(row.values())[1:-1] for row in predict(model[0], [long, stereo], args, model[1])]
    soundfile.write(tmp_path / "middle.wav", soundfile.read(long)[0][RATE // 4 : -RATE // 4], RATE)
    soundfile.write(tmp_path / "left.wav", soundfile.read(stereo)[0][:, 0], RATE)
    for row, name in zip(rows, ("middle.wav", "left.wav"), strict=True):
        torch.testing.assert_close(torch.tensor(row), alone(*model, tmp_path / name), rtol=0, atol=1e-5)
    strict = PredictArguments(batch_size=1, max_duration=1.0, channels="error")
    errors = [row["error"] for row in predict(model[0], [long, stereo], strict, model[1])]
    assert "longer than 1 s" in errors[0]
    assert "has 2 channels" in errors[1]


def test_a_model_that_takes_no_long_clips_refuses_them(make_model, tmp_path):
    model, extractor = make_model("whisper")
    write(tmp_path / "a.wav", 31)
    args = PredictArguments(batch_size=1, max_duration=60)
    assert "longer than 30 s" in next(predict(model, tmp_path, args, extractor))["error"]


def test_bfloat16_differs_and_stays_close(model, folder):
    full, reduced = (
        pd.DataFrame(predict(model[0], folder, PredictArguments(batch_size=4, precision=precision), model[1]))
        for precision in ("fp32", "bf16")
    )
    difference = (full.iloc[:, 1:-1] - reduced.iloc[:, 1:-1]).abs().to_numpy().max()
    assert 0 < difference < 0.02
    assert next(model[0].parameters()).dtype == torch.float32


@pytest.mark.slow
def test_what_is_left_open_is_measured_and_written_down(model, folder, tmp_path):
    args = PredictArguments(precision="auto")
    choice = predict_to_file(model[0], folder, tmp_path / "scores.csv", args, model[1]).choice
    assert choice.batch_size in (1, 2, 4, 8, 16)
    assert choice.precision in ("fp32", "bf16")
    record = json.loads((tmp_path / "scores.csv.json").read_text())
    assert record["choice"] == vars(choice)


@pytest.mark.parametrize("emulated", [True, False])
def test_bf16_is_measured_where_it_is_not_emulated(model, monkeypatch, emulated):
    monkeypatch.setattr(scorer, "bf16_is_emulated", lambda: emulated)
    own = Scorer(*model, PredictArguments())
    assert own.precisions("auto") == (("fp32",) if emulated else ("fp32", "bf16"))
    assert own.precisions("bf16") == ("bf16",)


def test_inputs_are_listed_in_the_order_given_and_each_clip_once(folder, tmp_path, caplog):
    named = folder / "2" / "20.wav"
    table = tmp_path / "list.tsv"
    table.write_text("clip\tnote\nsub/x.wav\tgone\n" + f"{folder / '0' / '00.wav'}\tabsolute\n")
    clips = list_clips([named, table, folder], "clip")
    rest = [str(path) for path in sorted(folder.rglob("*.wav")) if path not in (named, folder / "0" / "00.wav")]
    assert clips.files == [str(named), "sub/x.wav", str(folder / "0" / "00.wav"), *rest]
    assert clips.paths[1] == str(tmp_path / "sub" / "x.wav")
    assert "2 clips are named more than once" in caplog.text


def test_a_table_keeps_its_order_and_names_what_is_missing(model, folder, tmp_path):
    rows = pd.DataFrame({"path": ["2/20.wav", "gone.wav", "0/00.wav"], "speaker": list("abc")})
    for name in ("list.csv", "list.parquet"):
        path = folder / name
        rows.to_csv(path, index=False) if name.endswith("csv") else rows.to_parquet(path)
        found = list(predict(model[0], path, PredictArguments(batch_size=2), model[1]))
        path.unlink()
        assert names(found) == list(rows["path"])
        assert [row["error"] for row in found] == [None, "the file is missing", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [("file\na.wav\n", r"lacks the columns \['path'\]"), ("path,x\n ,1\n", r"line 2: path is empty"), ("", "empty")],
)
def test_a_table_that_cannot_be_used_is_an_error(text, message, tmp_path):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        list_clips([tmp_path / "list.csv"])


def test_batches_hold_clips_of_like_length_and_each_clip_once():
    samples = np.random.default_rng(0).integers(1_000, 50_000, 1_000)
    plan = BatchPlan(samples, batch_size=8, window=256)
    batches = dict(plan.batches())
    assert list(batches) == list(range(len(batches)))
    assert sorted(np.concatenate(list(batches.values())).tolist()) == list(range(1_000))
    padded = sum(len(batch) * samples[batch].max() for batch in batches.values())
    assert samples.sum() / padded > 0.95
    assert all(np.ptp(batch) < 256 for batch in batches.values())


def test_a_limit_of_samples_makes_batches_of_long_clips_smaller():
    samples = np.array([10, 10, 10, 10, 100, 35, 35])
    plan = BatchPlan(samples, batch_size=3, max_samples=70)
    assert [batch.tolist() for _, batch in plan.batches()] == [[4], [5, 6], [0, 1, 2], [3]]


@pytest.mark.parametrize(
    "fields", [{"batch_size": 0}, {"num_workers": 0}, {"max_duration": 0}, {"trim_db": -1}], ids=str
)
def test_arguments_out_of_range_are_refused(fields):
    (name,) = fields
    with pytest.raises(ValueError, match=f"--{name} must be"):
        PredictArguments(**fields)
