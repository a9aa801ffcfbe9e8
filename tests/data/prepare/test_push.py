"""A corpus that is published: what lies on the Hub, what comes back, and what keeps it from being pushed."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from huggingface_hub import constants

from avb_hf.cli import run
from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import ClipReader
from avb_hf.data.prepare import parquet_dataset
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.publish import check_published
from avb_hf.data.prepare.publish_arguments import PublishArguments
from avb_hf.data.sources import infer_task, load_corpus
from avb_hf.tasks import TASKS

pytestmark = pytest.mark.slow

REPO = "datasets/tester/bursts"
SPLITS = ("train", "train", "val", "test")
BY_TABLE = ["--source", "manifest", "--path_column", "File_ID", "--manifest", "RAW/labels/two_info.csv"]


def read(task="two", **flags):
    args = DataArguments(task=task, **flags)
    return load_corpus(infer_task(args), args)


def waves_of(splits):
    reader = ClipReader(DataArguments())
    return {name: split.with_transform(reader)[:]["audio"] for name, split in splits.items()}


def require_same(read_back, before):
    assert list(read_back) == list(before)
    for name, split in before.items():
        assert read_back[name]["file_id"][:] == split["file_id"][:]
        np.testing.assert_array_equal(np.asarray(read_back[name]["labels"][:]), np.asarray(split["labels"][:]))
    for name, waves in waves_of(before).items():
        for wave, other in zip(waves, waves_of(read_back)[name], strict=True):
            np.testing.assert_array_equal(wave, other)


def test_what_is_pushed_is_private_and_comes_back_by_name_and_by_commit(hub, publish, tmp_path, torchcodec_unwanted):
    code, said = publish("--push_to_hub", "tester/bursts")
    assert code == 0, said
    _, pushed = hub.commits(REPO)
    assert hub.repos[REPO].private
    assert sorted(pushed.files) == [
        "README.md",
        "avb_corpus.json",
        *(f"data/{name}-00000-of-00001.parquet" for name in ("test", "train", "validation")),
    ]
    for name, content in pushed.files.items():
        assert f"  {name}  {len(content):,} bytes" in said
        assert (tmp_path / "out-parquet" / name).read_bytes() == content
    assert "pushed to tester/bursts, a private dataset; licence: none named" in said
    assert "HUME-VB, the corpus of the A-VB challenge, may not be redistributed" in said
    assert f"(private), commit {pushed.oid}" in said
    shutil.rmtree(tmp_path / "out-parquet")
    for task in ("high", "culture", "type"):
        before = read(task, data_dir=str(tmp_path / "out"))
        require_same(read(task, source="hub", dataset_name="tester/bursts"), before)
    by_commit = read(source="hub", dataset_name="tester/bursts", dataset_revision=pushed.oid)
    require_same(by_commit, read(data_dir=str(tmp_path / "out")))
    assert pushed.oid in by_commit["train"]["path"][0]
    with pytest.raises(ValueError, match="no branch, tag or commit 'v9'"):
        read(source="hub", dataset_name="tester/bursts", dataset_revision="v9")


def test_a_name_without_owner_is_ones_own_and_an_older_push_is_replaced(hub, publish, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_dataset, "FILE_BYTES", 100_000)
    assert publish("--push_to_hub", "bursts", "--task", "two")[0] == 0
    first = hub.commits(REPO)[-1].files
    train = sorted(name for name in first if "train" in name)
    assert train == [f"data/train-{n:05d}-of-{len(train):05d}.parquet" for n in range(len(train))]
    assert len(train) > 1
    require_same(read(source="hub", dataset_name="tester/bursts"), read(data_dir=str(tmp_path / "out")))
    monkeypatch.undo()
    hub.enter(monkeypatch, tmp_path / "hf")
    table = pd.read_csv(labelled / "labels" / "two_info.csv")
    table.loc[0, "Arousal"] = 0.25
    table.to_csv(labelled / "labels" / "two_info.csv", index=False)
    assert publish("--push_to_hub", "bursts", "--task", "two")[0] == 0
    assert len(hub.commits(REPO)) == 3
    assert sum("train" in name for name in hub.commits(REPO)[-1].files) == 1
    assert read(source="hub", dataset_name="tester/bursts")["train"]["labels"][0][1] == 0.25
    older = read(source="hub", dataset_name="tester/bursts", dataset_revision=hub.commits(REPO)[1].oid)
    assert older["train"]["labels"][0][1] != 0.25


def test_an_upload_that_is_cut_off_changes_nothing_and_the_same_call_goes_on(hub, publish, tmp_path):
    hub.fail_after(2)
    code, said = publish("--push_to_hub", "tester/bursts")
    assert code == 2
    assert f"nothing has changed there, {tmp_path / 'out-parquet'} is whole, and the same call goes on" in said
    assert [commit.files for commit in hub.commits(REPO)] == [{}]
    hub.fail_after(0, times=0)
    uploads = [path for method, path, _ in hub.calls if method == "PUT"]
    assert publish("--push_to_hub", "tester/bursts")[0] == 0
    require_same(read(source="hub", dataset_name="tester/bursts"), read(data_dir=str(tmp_path / "out")))
    again = [path for method, path, _ in hub.calls if method == "PUT"][len(uploads) :]
    assert len(again) == 1


def test_nothing_is_made_on_the_hub_before_there_is_something_to_push(hub, publish, labelled):
    (labelled / "audio" / "any" / "00001.wav").write_bytes(b"no audio")
    code, said = publish("--push_to_hub", "tester/bursts")
    assert (code, "00001.wav: cannot be decoded" in said) == (2, True)
    assert hub.repos == {}


def test_what_the_hub_refuses_is_told_and_not_tried_again(hub, publish, caplog):
    hub.refuse("/_lfs/", 413, "your storage is full")
    code, said = publish("--push_to_hub", "tester/bursts")
    assert code == 2
    assert "413 Request Entity Too Large: your storage is full; nothing has changed there" in said
    assert "did not answer" not in said + caplog.text
    assert "trying again" not in caplog.text


def test_what_somebody_else_put_there_stays(hub, publish, tmp_path, caplog):
    assert publish("--push_to_hub", "tester/bursts")[0] == 0
    first = hub.commits(REPO)[-1].files
    theirs = {"README.md": b"# Mine\n", "LICENSE": b"MIT", "data/notes.csv": b"1"}
    hub.add_commit(hub.repos[REPO], "main", "theirs", first | theirs)
    assert publish("--push_to_hub", "tester/bursts", "--task", "two")[0] == 0
    last = hub.commits(REPO)[-1].files
    assert {name: last[name] for name in theirs} == theirs
    assert "README.md of tester/bursts was written by somebody else and stays" in caplog.text
    assert last["avb_corpus.json"] != first["avb_corpus.json"]

    hub.add_commit(hub.repos[REPO], "main", "more of theirs", last | {"data/train-more.parquet": b"PAR1"})
    code, said = publish("--push_to_hub", "tester/bursts")
    assert code == 2
    assert "also holds ['data/train-more.parquet'], which would be read as part of it" in said
    assert len(hub.commits(REPO)) == 5


def test_offline_what_was_downloaded_is_read_and_nothing_else(hub, publish, monkeypatch, tmp_path):
    assert publish("--push_to_hub", "tester/bursts")[0] == 0
    before = read(source="hub", dataset_name="tester/bursts")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    calls = len(hub.calls)
    require_same(read(source="hub", dataset_name="tester/bursts"), before)
    with pytest.raises(OSError, match="the Hub was asked for dataset tester/others and did not answer"):
        read(source="hub", dataset_name="tester/others")
    assert len(hub.calls) == calls


def test_a_dataset_that_may_not_be_read_is_no_dataset(hub, publish, monkeypatch):
    assert publish("--push_to_hub", "tester/bursts")[0] == 0
    with pytest.raises(ValueError, match=r"tester/others is no folder here, and no dataset on the Hub"):
        read(source="hub", dataset_name="tester/others")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ValueError, match=r"tester/bursts is no folder here, .*`hf auth login`"):
        read(source="hub", dataset_name="tester/bursts")


@pytest.mark.parametrize(
    ("prevent", "flags", "message"),
    [
        (lambda patch, hub: patch.delenv("HF_TOKEN"), [], "nobody is logged in"),
        (lambda patch, hub: patch.setattr(constants, "HF_HUB_OFFLINE", True), [], "offline"),
        (lambda patch, hub: setattr(hub, "role", "read"), [], "may only read"),
        (lambda patch, hub: None, ["--push_to_hub", "a/b/c"], "no such names"),
        (lambda patch, hub: None, ["--push_to_hub", "else/bursts"], "its owner must be one of"),
        (lambda patch, hub: hub.create(REPO, private=False), [], "is public already"),
        (lambda patch, hub: hub.create(REPO, True) or hub.commits(REPO)[0].files.update(x=b""), [], "avb_corpus.json"),
        (lambda patch, hub: setattr(hub, "role", "fineGrained") or hub.scopes.clear(), [], "may not write to tester/b"),
        (lambda patch, hub: None, ["--public"], "--public needs --license"),
        (lambda patch, hub: None, ["--source", "demo"], "'demo'"),
        (lambda patch, hub: None, ["--license", "CC BY"], "--license must be an identifier of the Hub"),
        (lambda patch, hub: None, ["--task", "tow"], "tow"),
        (lambda patch, hub: None, ["--max_bad_audio", "1.5"], "--max_bad_audio must be in [0, 1), got 1.5"),
        (lambda patch, hub: None, ["--label_columns", "joy"], "--label_columns belongs to --source manifest"),
        (lambda patch, hub: None, ["--source", "manifest"], "--source manifest publishes what one --manifest names"),
        (lambda patch, hub: None, [*BY_TABLE, "--split_column", "Split"], "needs --task, or --label_columns"),
        (lambda patch, hub: None, [*BY_TABLE, "--label_columns", "joy"], "the table lacks the columns ['joy']"),
        (lambda patch, hub: None, ["--parquet_dir", "RAW/x"], "may be inside the other"),
        (lambda patch, hub: None, ["--parquet_dir", "OUT"], "may be inside the other"),
        (lambda patch, hub: None, ["--parquet_dir", "TMP"], "may be inside the other"),
        (lambda patch, hub: None, ["--parquet_dir", "OTHER"], "holds files, but no avb_corpus.json"),
    ],
)
def test_what_prevents_a_push_is_told_before_the_work(hub, publish, monkeypatch, tmp_path, prevent, flags, message):
    prevent(monkeypatch, hub)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    places = {word: str(tmp_path / word.replace("RAW", "raw")) for word in ("RAW/x", "RAW/labels/two_info.csv")}
    places |= {"OUT": tmp_path / "out", "TMP": tmp_path, "OTHER": tmp_path / "other"}
    code, said = publish("--push_to_hub", "tester/bursts", *(str(places.get(word, word)) for word in flags))
    assert code == 2
    assert message in said
    assert not (tmp_path / "out").exists()
    assert not {"PUT", "POST"} & {method for method, _, _ in hub.calls}, "something was written"
    assert (tmp_path / "other" / "mine.txt").read_text() == "mine"


def test_a_public_one_names_its_licence(hub, publish):
    code, said = publish("--push_to_hub", "tester/bursts", "--public", "--license", "cc-by-4.0")
    assert code == 0, said
    assert not hub.repos[REPO].private
    assert "a public dataset; licence: cc-by-4.0" in said
    card = hub.commits(REPO)[-1].files["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-4.0"


def test_no_path_of_the_user_is_pushed(hub, publish, tmp_path):
    assert publish("--push_to_hub", "tester/bursts")[0] == 0
    for name, content in hub.commits(REPO)[-1].files.items():
        assert str(tmp_path).encode() not in content, name


def test_a_row_without_audio_keeps_all_from_being_published_or_stays_out(publish, labelled, tmp_path):
    (labelled / "audio" / "any" / "00001.wav").write_bytes(b"no audio")
    flags = ["--parquet_dir", str(tmp_path / "parquet"), "--task", "two"]
    code, said = publish(*flags)
    assert code == 2
    assert "nothing is published (--on_bad_audio skip publishes the others): 1 problem\n  audio/any/00001.wav: " in said
    assert not (tmp_path / "parquet").exists()
    code, said = publish(*flags, "--on_bad_audio", "skip")
    assert code == 2
    assert "more than --max_bad_audio" in said
    assert publish(*flags, "--on_bad_audio", "skip", "--max_bad_audio", "0.1")[0] == 1
    assert "00001" not in read(source="hub", dataset_name=str(tmp_path / "parquet"))["train"]["file_id"][:]


def test_a_test_recording_that_cannot_be_used_may_stay_out_though_a_contest_would_need_it(publish, labelled, tmp_path):
    table = pd.read_csv(labelled / "labels" / "two_info.csv")
    bad = table[table["Split"] == "Test"]["File_ID"].iloc[0].strip("[]")
    (labelled / "audio" / "any" / f"{bad}.wav").write_bytes(b"no audio")
    flags = ["--parquet_dir", str(tmp_path / "parquet"), "--on_bad_audio", "skip", "--max_bad_audio", "0.1"]
    code, said = publish(*flags)
    assert code == 1, said
    assert bad not in read(source="hub", dataset_name=str(tmp_path / "parquet"))["test"]["file_id"][:]
    tasks = json.loads((tmp_path / "parquet" / "avb_corpus.json").read_text())["tasks"]
    assert tasks["two"]["submission_name"] == TASKS["two"].submission_name is not None


@pytest.mark.parametrize("bad", ["a.flac", "b.flac", None])
def test_a_manifest_is_read_from_its_own_folder_whichever_recording_is_bad(bad, tmp_path, capsys):
    (tmp_path / "raw" / "lists").mkdir(parents=True)
    names = ["a.flac", "b.flac", "c.flac", "d.flac"]
    for number, name in enumerate(names):
        wave = np.random.default_rng(number).uniform(-0.5, 0.5, 8_000)
        soundfile.write(tmp_path / "raw" / "lists" / name, wave, 16_000)
    if bad is not None:
        (tmp_path / "raw" / "lists" / bad).write_bytes(b"no audio")
    rows = [f"{name},{split},0.{number}" for number, (name, split) in enumerate(zip(names, SPLITS, strict=True))]
    manifest = tmp_path / "raw" / "lists" / "clips.csv"
    manifest.write_text("\n".join(["path,split,joy", *rows]) + "\n")
    words = [str(tmp_path / "raw"), str(tmp_path / "out"), "--num_workers", "1", "--manifest", str(manifest)]
    words += ["--source", "manifest", "--label_columns", "joy", "--split_column", "split"]
    words += ["--parquet_dir", str(tmp_path / "parquet"), "--on_bad_audio", "skip", "--max_bad_audio", "0.5"]
    code = run("prepare", words)
    assert code == (0 if bad is None else 1), "".join(capsys.readouterr())
    args = DataArguments(source="hub", dataset_name=str(tmp_path / "parquet"))
    found = {name for split in load_corpus(infer_task(args), args).values() for name in split["file_id"]}
    assert found == set(names) - {bad}


def test_a_recording_that_no_table_names_is_not_left_out_unasked(hub, tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    for number in range(30):
        wave = np.random.default_rng(number).uniform(-0.5, 0.5, 1_600)
        soundfile.write(tmp_path / "raw" / f"{number % 5:06d}-{number % 3 + 1:02d}-{number}.mp3", wave, 16_000)
    (tmp_path / "raw" / "000000-01-0.mp3").write_text("no audio")
    words = [str(tmp_path / "raw"), str(tmp_path / "out"), "--num_workers", "1", "--source", "emogator"]
    words += ["--push_to_hub", "tester/bursts", "--parquet_dir", str(tmp_path / "parquet")]

    def publish(*flags):
        return run("prepare", [*words, *flags]), "".join(capsys.readouterr())

    code, said = publish()
    assert code == 2
    assert "nothing is published (--on_bad_audio skip publishes the others): 1 problem\n  000000-01-0.mp3: " in said
    code, said = publish("--on_bad_audio", "skip")
    assert code == 2
    assert "3.33% of the recordings cannot be used, more than --max_bad_audio 0.01 allows" in said
    assert not (tmp_path / "parquet").exists()
    assert hub.repos == {}
    assert publish("--on_bad_audio", "skip", "--max_bad_audio", "0.04")[0] == 1
    splits = read("emogator", source="hub", dataset_name="tester/bursts")
    assert sum(map(len, splits.values())) == 29


def test_recordings_that_get_their_names_by_the_work_pass_the_check_before(tmp_path):
    (tmp_path / "raw").mkdir()
    soundfile.write(tmp_path / "raw" / "000000-01-0.flac", np.zeros(1_600), 16_000)
    publish = PublishArguments(source="emogator", parquet_dir=str(tmp_path / "parquet"))
    check_published(tmp_path / "raw", tmp_path / "out", PrepareArguments(), publish)
    with pytest.raises(ValueError, match=r"RAW .*none is not a folder"):
        check_published(tmp_path / "none", tmp_path / "out", PrepareArguments(), publish)


def test_tasks_of_other_clips_are_published_one_by_one(publish, labelled, tmp_path):
    path = labelled / "labels" / "type_info.csv"
    table = pd.read_csv(path)
    table.iloc[::-1].to_csv(path, index=False)
    code, said = publish("--parquet_dir", str(tmp_path / "parquet"))
    assert code == 0, said
    before = read("type", data_dir=str(tmp_path / "out"))["train"]
    after = read("type", source="hub", dataset_name=str(tmp_path / "parquet"))["train"]
    assert dict(zip(after["file_id"], after["labels"], strict=True)) == dict(
        zip(before["file_id"], before["labels"], strict=True)
    )
    table.loc[0, "Split"] = "Val"
    table.to_csv(path, index=False)
    code, said = publish("--parquet_dir", str(tmp_path / "parquet"))
    assert code == 2
    assert "the tasks high and type differ in 2 clips or their splits, first File_ID 00001 (train)" in said
    assert publish("--parquet_dir", str(tmp_path / "parquet"), "--task", "type")[0] == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"task": "two"}, "--task says what is published: give --push_to_hub or --parquet_dir"),
        ({"parquet_dir": "x", "public": True}, "--public belongs to --push_to_hub"),
        ({"parquet_dir": "x", "source": "hub"}, "must be one of"),
        ({"parquet_dir": "x", "split_seed": -1}, "--split_seed must be 0 or more"),
    ],
)
def test_flags_that_do_not_fit_are_errors(flags, message):
    with pytest.raises(ValueError, match=message):
        PublishArguments(**flags)
