"""A published corpus as a folder: what is written, what other libraries read, and what is never overwritten."""

import itertools
import json

import pandas as pd
import pytest
import yaml
from datasets import Audio, load_dataset
from pyarrow import parquet

from avb_hf.card_marker import CARD_MARKER
from avb_hf.data.prepare import parquet_dataset

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """The end of a process."""


@pytest.fixture
def written(publish, tmp_path):
    """The folder of a dataset, and a function that writes it again with other labels and returns what was said."""
    folder = tmp_path / "parquet"
    assert publish("--parquet_dir", str(folder))[0] == 0
    return folder, lambda: publish("--parquet_dir", str(folder), "--task", "two")


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tasks_of(folder):
    return list(json.loads((folder / "avb_corpus.json").read_text())["tasks"])


def test_other_libraries_read_the_folder(publish, tmp_path, torchcodec_unwanted):
    code, said = publish("--parquet_dir", str(tmp_path / "parquet"), "--task", "type")
    assert (code, "is not pushed" in said) == (0, True)
    fields = yaml.safe_load((tmp_path / "parquet" / "README.md").read_text().split("---\n")[1])
    (config,) = fields["configs"]
    assert "license" not in fields
    files = {item["split"]: str(tmp_path / "parquet" / item["path"]) for item in config["data_files"]}
    read_back = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert read_back["train"].features["audio"] == Audio(sampling_rate=16_000, decode=False)
    table = pd.read_csv(tmp_path / "out" / "labels" / "type_info.csv").set_index("File_ID")
    for name, word in (("train", "Train"), ("validation", "Val"), ("test", "Test")):
        assert read_back[name]["Voc_Type"][:] == table[table.Split == word]["Voc_Type"].to_list()
        for row in read_back[name]:
            assert row["audio"]["bytes"] == (tmp_path / "out" / row["audio"]["path"]).read_bytes()
            assert row["audio"]["path"] == f"audio/any/{row['file_id']}.wav"


def test_rows_stand_in_groups_that_are_small_to_read(publish, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_dataset, "GROUP_BYTES", 30_000)
    assert publish("--parquet_dir", str(tmp_path / "parquet"))[0] == 0
    path = tmp_path / "parquet" / "data" / "train-00000-of-00001.parquet"
    content, sizes = parquet.ParquetFile(path), []
    for group in range(content.num_row_groups):
        sizes.append([len(cell["bytes"]) for cell in content.read_row_group(group, ["audio"])["audio"].to_pylist()])
    assert len(sizes) > 1
    assert all(sum(group) <= 30_000 or len(group) == 1 for group in sizes)
    assert all(sum(one) + other[0] > 30_000 for one, other in itertools.pairwise(sizes))
    before = path.read_bytes()
    assert publish("--parquet_dir", str(tmp_path / "parquet"))[0] == 0
    assert path.read_bytes() == before


def test_what_was_written_stays_where_writing_fails(publish, tmp_path, monkeypatch):
    folder = tmp_path / "parquet"
    assert publish("--parquet_dir", str(folder))[0] == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(parquet_dataset, "write_facts", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left")))
        assert publish("--parquet_dir", str(folder), "--task", "two")[0] == 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert publish("--parquet_dir", str(folder), "--task", "two")[0] == 0
    assert list(json.loads((folder / "avb_corpus.json").read_text())["tasks"]) == ["two"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "parquet", "raw"]


FOREIGN = {
    "a note": ("notes.txt", b"mine"),
    "a hidden file": (".git/config", b"mine"),
    "Parquet beside it": ("data/train-more.parquet", b"PAR1"),
    "Parquet that was changed": ("data/train-00000-of-00001.parquet", b"PAR1"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_not_of_the_dataset_is_named_before_the_work(case, written, tmp_path, monkeypatch):
    folder, write_again = written
    name, content = FOREIGN[case]
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    before = files_of(folder)
    monkeypatch.setattr("avb_hf.data.prepare.run.prepare", lambda *args: pytest.fail("the work began"))
    code, said = write_again()
    assert code == 2
    assert f"not of the dataset, or not as it was written: ['{name}']" in said
    assert files_of(folder) == before


def test_what_comes_into_the_folder_during_the_work_stays(written, monkeypatch, capsys):
    folder, write_again = written
    write_facts = parquet_dataset.write_facts

    def meanwhile(*args):
        (folder / "notes.txt").write_text("mine")
        write_facts(*args)

    monkeypatch.setattr(parquet_dataset, "write_facts", meanwhile)
    code, said = write_again()
    assert (code, "['notes.txt']" in said) == (2, True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(tasks_of(folder)) > 1


def test_an_edited_card_stays_and_another_is_replaced(written, caplog):
    folder, write_again = written
    card = folder / "README.md"
    before = card.read_text()
    assert CARD_MARKER in before.splitlines()
    assert write_again()[0] == 0
    assert card.read_text() != before
    assert "stays" not in caplog.text

    mine = card.read_text().replace(CARD_MARKER, "Ask Ann before you use this.")
    card.write_text(mine)
    assert write_again()[0] == 0
    assert card.read_text() == mine
    assert f"{card} was written by somebody else and stays" in caplog.text


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_call_that_is_cut_off_leaves_one_dataset_whole(renames, written, monkeypatch, tmp_path):
    folder, write_again = written
    before, (rename, done) = files_of(folder), (type(folder).rename, [])

    def cut_off(self, target):
        if len(done) == renames:
            raise Killed
        done.append(target)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "rename", cut_off)
        patch.setattr(parquet_dataset.shutil, "rmtree", lambda *args, **kwargs: None)
        if renames < 2:
            with pytest.raises(Killed):
                write_again()
        else:
            write_again()
    whole = [path for path in (folder, tmp_path / ".parquet.earlier") if path.is_dir() and files_of(path) == before]
    assert len(whole) == 1
    assert write_again()[0] == 0
    assert tasks_of(folder) == ["two"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "parquet", "raw"]
