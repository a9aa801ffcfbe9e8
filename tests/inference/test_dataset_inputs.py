"""`avb predict` over datasets that hold the audio, against the same clips as files."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import constants

from avb_hf.cli import run
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.publish import write_published
from avb_hf.data.prepare.publish_arguments import PublishArguments
from avb_hf.data.prepare.run import prepare
from avb_hf.inference.clip_list import list_clips
from avb_hf.inference.predict import predict, predict_to_file
from avb_hf.inference.predict_arguments import PredictArguments


@pytest.fixture(scope="module")
def published(make_corpus, tmp_path_factory):
    """A prepared corpus and the folder of its dataset."""
    folder = tmp_path_factory.mktemp("published")
    args = PrepareArguments(num_workers=1)
    prepare(make_corpus(folder / "raw", clips=12), folder / "out", args)
    publish = PublishArguments(parquet_dir=str(folder / "hub"))
    return folder / "out", write_published(folder / "raw", folder / "out", args, publish, None)


def test_a_dataset_lists_its_clips_by_file_id(published):
    out, folder = published
    clips = list_clips([folder])
    assert sorted(clips.files) == sorted(path.stem for path in out.rglob("*.wav"))
    train = folder / "data" / "train-00000-of-00001.parquet"
    assert list_clips([train]).files == clips.files[3:9]
    assert clips.paths[3] == f"{train}/1"
    both = list_clips([train, out / "audio"])
    assert len(both) == 6 + 12
    assert both.files[6:] == sorted(map(str, (out / "audio").rglob("*.wav")))


@pytest.mark.parametrize("through_link", [False, True])
def test_a_file_that_holds_clips_is_not_written_over(published, make_model, tmp_path, through_link):
    folder = shutil.copytree(published[1], tmp_path / "copy")
    train = folder / "data" / "train-00000-of-00001.parquet"
    content = train.read_bytes()
    output = tmp_path / "scores.parquet" if through_link else train
    if through_link:
        output.hardlink_to(train)
    model, extractor = make_model(label_range=(0, 1))
    with pytest.raises(ValueError, match=f"{output} holds clips of the input"):
        predict_to_file(model, folder, output, PredictArguments(), extractor, overwrite=True)
    assert train.read_bytes() == content


def test_its_digest_follows_its_file(published, tmp_path):
    folder = shutil.copytree(published[1], tmp_path / "copy")
    before = list_clips([folder]).digest()
    assert list_clips([folder]).digest() == before
    (folder / "data" / "train-00000-of-00001.parquet").touch()
    assert list_clips([folder]).digest() != before


def test_a_table_of_paths_stays_one_and_a_damaged_file_is_named(published, tmp_path):
    table = tmp_path / "t.parquet"
    pd.DataFrame({"path": ["a.wav"]}).to_parquet(table)
    assert list_clips([table]).paths == [str(tmp_path / "a.wav")]
    table.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"t.parquet: not a readable Parquet file"):
        list_clips([table])


def test_scores_are_those_of_the_files(published, make_model):
    out, folder = published
    model, extractor = make_model()
    args = PredictArguments(batch_size=4, use_cpu=True, num_workers=2)
    files = {Path(row.pop("file")).stem: row for row in predict(model, out / "audio", args, extractor)}
    rows = {row.pop("file"): row for row in predict(model, folder, args, extractor)}
    assert len(rows) == 12
    assert rows == files
    assert all(row["error"] is None for row in rows.values())


def test_a_dataset_of_the_hub_is_an_input(hub, make_corpus, tmp_path, capsys):
    raw = make_corpus(tmp_path / "raw", clips=12)
    words = [str(raw), str(tmp_path / "out"), "--num_workers", "1", "--push_to_hub", "tester/bursts"]
    assert run("prepare", words) == 0
    commit = hub.commits("datasets/tester/bursts")[-1].oid
    for name in ("hf://datasets/tester/bursts", f"hf://datasets/tester/bursts@{commit}"):
        clips = list_clips([name])
        assert sorted(clips.files) == [f"{number:05d}" for number in range(1, 13)]
        assert all(commit in path for path in clips.paths)
    with pytest.raises(ValueError, match="no branch, tag or commit 'v9'"):
        list_clips(["hf://datasets/tester/bursts@v9"])
    with pytest.raises(ValueError, match="'nowhere' is no folder here, and the Hub has no such names"):
        list_clips(["hf://datasets/nowhere"])


def test_a_dataset_of_the_hub_is_told_by_its_commit_wherever_it_lies(hub, published, tmp_path, monkeypatch):
    _, folder = published
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    hub.create("datasets/tester/bursts", private=True)
    repo = hub.repos["datasets/tester/bursts"]
    hub.add_commit(repo, "main", "first", {name: (folder / name).read_bytes() for name in names})
    first = hub.commits("datasets/tester/bursts")[-1]

    def digest(cache, revision=""):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / cache))
        clips = list_clips([f"hf://datasets/tester/bursts{revision}"])
        assert len(clips) == 12
        assert all(path.startswith(str(tmp_path / cache)) for path in clips.paths)
        return clips.digest()

    before = digest("one")
    assert digest("two") == before
    hub.add_commit(repo, "main", "second", first.files | {"notes.txt": b"1"})
    assert digest("one") != before
    assert digest("one", f"@{first.oid}") == before
    assert list_clips([folder]).digest() != before


def test_a_dataset_that_is_not_whole_is_refused(published, tmp_path):
    folder = shutil.copytree(published[1], tmp_path / "copy")
    (folder / "data" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"not the whole dataset: 1 problem\s+data/test-00000-of-00001.parquet: is mi"):
        list_clips([folder])
