import csv
import math

import numpy as np
import pytest
import soundfile

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import ClipReader, is_labelled
from avb_hf.data.sources import infer_task, load_corpus
from avb_hf.tasks import TASKS

AVB_TASKS = [name for name, task in TASKS.items() if task.label_file]
IDS = ("00003", "00001", "00002", "00010", "00007", "00009")
SPLITS = ("Val", "Train", "Train", "Test", "Val", "Test")


def label_cells(task, number):
    if task.is_classification:
        return [task.labels[number % len(task.labels)]]
    return [f"{(number * 7 + i) % 10 / 10}" for i in range(len(task.labels))]


def rows_of(task):
    rows = [[f"[{i}]", split, *label_cells(task, int(i))] for i, split in zip(IDS, SPLITS, strict=True)]
    return [["File_ID", "Split", *task.label_columns], *rows]


def write_table(folder, task, rows):
    (folder / "labels").mkdir(exist_ok=True)
    with (folder / "labels" / task.label_file).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_audio(folder, kind="wav", rate=16_000, channels=1):
    (folder / "audio" / kind).mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, (rate // 5, channels))
    for number in IDS:
        soundfile.write(folder / "audio" / kind / f"{number}.{kind}", noise, rate)


def load(folder, task, **flags):
    return load_corpus(task, DataArguments(source="avb", data_dir=str(folder), **flags))


@pytest.fixture
def corpus(tmp_path):
    write_audio(tmp_path)
    return tmp_path


@pytest.mark.wide
@pytest.mark.parametrize("name", AVB_TASKS)
@pytest.mark.parametrize("kind", ["wav", "mp3", "ogg", "flac"])
def test_all_tasks_from_48_khz_stereo_of_all_formats(tmp_path, name, kind):
    task = infer_task(DataArguments(task=name))
    write_audio(tmp_path, kind, 48_000, 2)
    write_table(tmp_path, task, rows_of(task))
    splits = load(tmp_path, task)
    assert list(splits["train"]["file_id"]) == ["00001", "00002"]
    assert list(splits["validation"]["file_id"]) == ["00003", "00007"]
    assert is_labelled(splits["test"], task)
    expected = label_cells(task, 2)
    expected = task.labels.index(expected[0]) if task.is_classification else [float(cell) for cell in expected]
    assert splits["train"][1]["labels"] == expected
    read = splits["test"].with_transform(ClipReader(DataArguments()))[:]
    assert [audio.shape for audio in read["audio"]] == [(3_200,)] * 2
    assert set(read["sampling_rate"]) == {48_000}


def test_ids_need_no_brackets_and_columns_may_stand_in_any_order(corpus):
    task = TASKS["two"]
    rows = [[cell.strip("[]") for cell in row[::-1]] for row in rows_of(task)]
    write_table(corpus, task, rows)
    assert load(corpus, task)["train"][0]["labels"] == [float(cell) for cell in label_cells(task, 1)]


def test_culture_reads_the_organisers_misspelling_and_missing_labels(corpus):
    task = TASKS["culture"]
    rows = rows_of(task)
    rows[0] = [column.replace("South Africa_Sadness", "SouthAfrica_Sadness") for column in rows[0]]
    at = task.labels.index("South Africa_Sadness")
    rows[2][2 + at], rows[3][2 + at] = "", "0.25"
    write_table(corpus, task, rows)
    labels = np.asarray(load(corpus, task)["train"]["labels"][:])
    assert math.isnan(labels[0, at])
    assert labels[1, at] == 0.25
    assert np.isnan(labels).sum() == 1


@pytest.mark.parametrize("column", ["Speaker", "speaker"])
def test_a_speaker_column_is_read_where_it_exists(corpus, column):
    task = TASKS["type"]
    rows = rows_of(task)
    write_table(corpus, task, rows)
    assert "speaker" not in load(corpus, task)["train"].column_names
    write_table(corpus, task, [[*row, f"s{i}" if i else column] for i, row in enumerate(rows)])
    assert list(load(corpus, task)["validation"]["speaker"]) == ["s1", "s5"]


@pytest.mark.parametrize("placeholder", ["", "-1", "0"])
def test_placeholders_make_the_test_split_unlabelled(corpus, placeholder):
    task = TASKS["high"]
    rows = rows_of(task)
    for row in rows:
        if row[1] == "Test":
            row[2:] = [placeholder] * len(task.labels)
    write_table(corpus, task, rows)
    splits = load(corpus, task)
    assert np.isnan(splits["test"]["labels"][:]).all()
    assert not is_labelled(splits["test"], task)


def plant(row, column, value):
    def change(rows):
        rows[row][column] = value

    return change


def drop_column(rows):
    for row in rows:
        del row[3]


def add_column(rows):
    for row in rows:
        row.append("more")


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        (plant(2, 0, "[../00001]"), r"line 3: File_ID must be of letters"),
        (plant(2, 0, "/etc/passwd"), r"line 3: File_ID must be of letters"),
        (plant(2, 0, "[00001"), r"line 3: File_ID must be of letters"),
        (plant(2, 0, ""), r"line 3: File_ID must be of letters"),
        (plant(2, 0, "[1]"), r"line 3, File_ID 1 \(.*/audio/\*/1\.\*\): the file is missing"),
        (
            plant(2, 0, "[00003]"),
            r"line 3, File_ID 00003 .*of two_info.csv, line 2 \(validation\) again, here in train",
        ),
        (plant(3, 0, "[00001]"), r"line 4, File_ID 00001 .*of two_info.csv, line 3 \(train\) again, here in train"),
        (
            plant(2, 1, "train"),
            r"line 3, File_ID 00001: Split must be one of \['Train', 'Val', 'Test'\], got 'train'; did you mean",
        ),
        (plant(1, 2, "1.01"), r"line 2, File_ID 00003: label Valence = 1.01 is outside"),
        (plant(1, 2, "5"), r"scale of 1-9"),
        (plant(1, 3, ""), r"label Arousal is missing"),
        (plant(1, 3, "x"), r"label Arousal must be a finite number, got 'x'"),
        (plant(0, 2, "Arousal"), r"more than once: \['Arousal'\]"),
        (plant(0, 2, "valence"), r"lacks the columns \['Valence'\]"),
        (drop_column, r"lacks the columns \['Arousal'\]"),
        (add_column, r"unknown columns \['more'\]"),
        (lambda rows: rows[4].pop(), r"line 5: 3 cells, the header has 4"),
        (lambda rows: rows.__delitem__(slice(1, None)), "a header and no rows"),
    ],
)
def test_each_planted_defect_gives_its_error(corpus, defect, message):
    task = TASKS["two"]
    rows = rows_of(task)
    defect(rows)
    write_table(corpus, task, rows)
    with pytest.raises(ValueError, match=message) as caught:
        load(corpus, task)
    assert "two_info.csv" in str(caught.value)


def test_an_unknown_class_names_the_nearest(corpus):
    rows = rows_of(TASKS["type"])
    rows[1][2] = "Gaspp"
    write_table(corpus, TASKS["type"], rows)
    with pytest.raises(ValueError, match=r"line 2, File_ID 00003: .*got 'Gaspp'; did you mean 'Gasp'"):
        load(corpus, TASKS["type"])


def test_missing_audio_files_are_listed_together(corpus):
    write_table(corpus, TASKS["two"], rows_of(TASKS["two"]))
    for number in IDS[:3]:
        (corpus / "audio" / "wav" / f"{number}.wav").unlink()
    with pytest.raises(ValueError, match=r"(?s)3 problems.*File_ID 00003 .*is missing.*File_ID 00002 .*is missing"):
        load(corpus, TASKS["two"])


def test_two_files_of_one_name_are_an_error_that_names_both(corpus):
    write_table(corpus, TASKS["two"], rows_of(TASKS["two"]))
    (corpus / "audio" / "mp3").mkdir()
    (corpus / "audio" / "mp3" / "00001.mp3").write_bytes((corpus / "audio" / "wav" / "00001.wav").read_bytes())
    with pytest.raises(ValueError, match=r"more than one audio file: .*mp3/00001.mp3, .*wav/00001.wav"):
        load(corpus, TASKS["two"])


def test_a_link_out_of_the_folder_is_an_error(corpus, tmp_path_factory):
    write_table(corpus, TASKS["two"], rows_of(TASKS["two"]))
    inside = corpus / "audio" / "wav" / "00001.wav"
    inside.rename(outside := tmp_path_factory.mktemp("outside") / "x.wav")
    inside.symlink_to(outside)
    with pytest.raises(ValueError, match=r"00001.wav leads out of the data folder"):
        load(corpus, TASKS["two"])


def test_a_link_to_itself_is_an_error_of_its_row(corpus):
    write_table(corpus, TASKS["two"], rows_of(TASKS["two"]))
    (corpus / "audio" / "wav" / "00001.wav").unlink()
    (corpus / "audio" / "wav" / "00001.wav").symlink_to("00001.wav")
    with pytest.raises(ValueError, match=r"two_info.csv, line 3, File_ID 00001 .*Too many levels of symbolic links"):
        load(corpus, TASKS["two"])


def test_what_the_flags_must_say(corpus):
    with pytest.raises(ValueError, match=r"needs --task, one of \['high', 'two', 'culture', 'type'\]"):
        infer_task(DataArguments(source="avb"))
    with pytest.raises(ValueError, match="task 'emogator' has no label_file"):
        load(corpus, TASKS["emogator"])
    with pytest.raises(ValueError, match="needs --data_dir"):
        load_corpus(TASKS["two"], DataArguments())
    with pytest.raises(ValueError, match="is not a folder"):
        load(corpus / "gone", TASKS["two"])
    with pytest.raises(ValueError, match=r"two_info.csv: the table does not exist"):
        load(corpus, TASKS["two"])
