"""Tables that name clips by path, read by the manifest source before and after."""

import pandas as pd
import pytest

from avb_hf.data.arguments import DataArguments
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.path_tables import WRITERS
from avb_hf.data.prepare.run import prepare
from avb_hf.data.sources import infer_task, load_corpus
from avb_hf.data.tables import READERS

pytestmark = pytest.mark.slow

WRITE = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


def make_table(folder="", **columns):
    paths = [f"{folder}{name}" for name in ("one.flac", "b/two.WAV", "b/three.ogg")]
    return pd.DataFrame(
        {"path": paths, "split": ["train", "train", "val"], "Joy, loud": ["0.25", "1e-1", ".5"]} | columns
    )


def read(manifest, **flags):
    args = DataArguments(
        source="manifest", manifest=str(manifest), label_columns=["Joy, loud"], split_column="split", **flags
    )
    splits = load_corpus(infer_task(args), args)
    return [(row["file_id"], row["labels"]) for split in splits.values() for row in split], [
        row["path"] for split in splits.values() for row in split
    ]


def call(raw, out, *manifests, **flags):
    return prepare(raw, out, PrepareArguments(num_workers=1, manifest=[str(path) for path in manifests], **flags))


@pytest.mark.parametrize("suffix", WRITE)
def test_ids_that_are_paths_are_kept_in_a_column(raw, tmp_path, suffix):
    manifest = raw / f"clips{suffix}"
    WRITE[suffix](make_table(), manifest)
    call(raw, tmp_path / "out", manifest)
    rows, paths = read(tmp_path / "out" / manifest.name, id_column="File_ID")
    assert rows == read(manifest)[0]
    assert paths == [str(tmp_path / "out" / name) for name in ("one.wav", "b/two.wav", "b/three.wav")]


def test_ids_with_a_column_of_their_own_stay_there_and_no_other_cell_changes(raw, tmp_path):
    manifest = raw / "clips.csv"
    make_table(id=["01", "2", "NA"]).to_csv(manifest, index=False)
    call(raw, tmp_path / "out", manifest, id_column="id")
    expected = manifest.read_text().replace("one.flac", "one.wav").replace("two.WAV", "two.wav")
    assert (tmp_path / "out" / "clips.csv").read_text() == expected.replace("three.ogg", "three.wav")


@pytest.mark.parametrize("base", ["raw/", "", "/"], ids=["its own folder", "raw", "absolute"])
def test_a_manifest_elsewhere_lands_in_out(raw, tmp_path, base):
    manifest = tmp_path / "clips.csv"
    make_table(f"{raw}/" if base == "/" else base).to_csv(manifest, index=False)
    call(raw, tmp_path / "out", manifest)
    rows, paths = read(tmp_path / "out" / "clips.csv", id_column="File_ID")
    assert rows == read(manifest, data_dir=None if base == "raw/" else str(raw))[0]
    assert paths == [str(tmp_path / "out" / name) for name in ("one.wav", "b/two.wav", "b/three.wav")]


def test_a_manifest_in_a_subfolder_keeps_the_base_of_its_paths(raw, tmp_path):
    manifest = raw / "b" / "clips.csv"
    pd.DataFrame({"path": ["../one.flac", "two.WAV"], "m": ["1", "2"]}).to_csv(manifest, index=False)
    call(raw, tmp_path / "out", manifest, id_column="m")
    table = pd.read_csv(tmp_path / "out" / "b" / "clips.csv")
    assert list(table["path"]) == ["../one.wav", "two.wav"]


def test_a_table_whose_paths_hold_is_copied(raw, tmp_path):
    (raw / "one.flac").rename(raw / "one.wav")  # the content decides
    (raw / "clips.csv").write_text('path,"mood"\r\n./one.wav,glad\r\n')
    for number, manifests in enumerate([(), (raw / "clips.csv",)]):
        call(raw, tmp_path / str(number), *manifests)
        assert (tmp_path / str(number) / "clips.csv").read_bytes() == (raw / "clips.csv").read_bytes()


@pytest.mark.parametrize("suffix", WRITE)
def test_a_table_that_would_name_absent_clips_must_be_given(raw, tmp_path, suffix):
    WRITE[suffix](make_table().rename(columns={"path": "the file"}), raw / f"clips{suffix}")
    with pytest.raises(ValueError, match=f"clips{suffix}: give --manifest .*clips{suffix} --path_column 'the file'"):
        call(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    call(raw, tmp_path / "out", raw / f"clips{suffix}", path_column="the file")


def test_so_must_one_that_would_name_the_raw_clips(raw, tmp_path):
    (raw / "one.flac").rename(raw / "one.wav")
    (raw / "clips.csv").write_text(f"path\n{raw}/one.wav\n")
    with pytest.raises(ValueError, match=r"clips\.csv: give --manifest"):
        call(raw, tmp_path / "out")


def test_a_table_that_is_none_is_copied(raw, tmp_path):
    (raw / "odd.csv").write_bytes(b"a,b\none.flac\n\xff")
    call(raw, tmp_path / "out")
    assert (tmp_path / "out" / "odd.csv").read_bytes() == (raw / "odd.csv").read_bytes()


def test_rows_without_a_recording_are_named(raw, tmp_path):
    (raw / "clips.csv").write_text("path\none.flac\nb/four.mp3\n../raw2/x.wav\n")
    with pytest.raises(ValueError, match=r"column path: 2 problems\n  .*line 3: .*'b/four\.mp3'.*\n  .*line 4"):
        call(raw, tmp_path / "out", raw / "clips.csv")


@pytest.mark.parametrize("cell", ["b/a\0.wav", "a\0/b.flac", "loop.wav/one.flac", "x" * 300 + ".flac"])
def test_a_path_that_no_file_can_have_is_named(raw, tmp_path, cell):
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "clips.csv").write_text(f"path\nraw/one.flac\n{cell}\n")
    with pytest.raises(ValueError, match=r"clips\.csv, line 3: no audio file"):
        call(raw, tmp_path / "out", tmp_path / "clips.csv")
    (raw / "other.csv").write_text(f"file\n{cell}\n")
    assert call(raw, tmp_path / "out").bad == {}


def test_a_file_id_column_that_was_not_named_is_not_overwritten(raw, tmp_path):
    (raw / "clips.csv").write_text("path,File_ID\none.flac,a\n")
    with pytest.raises(ValueError, match="--id_column File_ID"):
        call(raw, tmp_path / "out", raw / "clips.csv")
    call(raw, tmp_path / "out", raw / "clips.csv", id_column="File_ID")
    assert (tmp_path / "out" / "clips.csv").read_text() == "path,File_ID\none.wav,a\n"


def test_every_table_that_is_read_can_be_written():
    assert READERS.keys() == WRITERS.keys() == WRITE.keys()
