import pytest

from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.plan import make_plan, prepared_name
from avb_hf.data.prepare.run import prepare

ARGS = PrepareArguments(num_workers=1)


def test_every_file_has_one_step(raw, tmp_path):
    steps = {step.output: (step.source, step.kind) for step in make_plan(raw, tmp_path / "out", ARGS)}
    assert steps == {
        "one.wav": ("one.flac", "clip"),
        "b/two.wav": ("b/two.WAV", "clip"),
        "b/three.wav": ("b/three.ogg", "clip"),
        "ids.csv": ("ids.csv", "copy"),
        "README": ("README", "copy"),
    }


def test_a_clip_keeps_its_stem():
    assert prepared_name("a/x.1.mp3") == "a/x.1.wav"


@pytest.mark.parametrize("clash", ["one.wav", "one.Mp3", "b/two.flac"])
def test_two_recordings_of_one_name_are_refused_before_any_work(raw, tmp_path, clash):
    (raw / clash).write_bytes(b"")
    with pytest.raises(ValueError, match=r"(one|two)\.wav: .* and .*"):
        prepare(raw, tmp_path / "out", ARGS)
    assert not (tmp_path / "out").exists()


def test_a_file_with_the_records_name_is_refused(raw, tmp_path):
    (raw / "prepare.json").write_text("{}")
    with pytest.raises(ValueError, match=r"prepare\.json"):
        prepare(raw, tmp_path / "out", ARGS)


@pytest.mark.parametrize("out", [".", "deeper", ".."])
def test_folders_inside_each_other_are_refused(raw, out):
    with pytest.raises(ValueError, match="may be inside the other"):
        prepare(raw, raw / out, ARGS)
    assert not (raw / "deeper").exists()


def test_a_linked_folder_is_still_the_same_folder(raw, tmp_path):
    (tmp_path / "link").symlink_to(raw)
    with pytest.raises(ValueError, match="may be inside the other"):
        prepare(raw, tmp_path / "link" / "out", ARGS)


@pytest.mark.parametrize(("link", "target"), [("x.wav", "outside.wav"), ("folder", "raw/b"), ("gone.wav", "raw/gone")])
def test_links_that_lead_out_or_nowhere_or_to_folders_are_refused(raw, tmp_path, link, target):
    (tmp_path / "outside.wav").write_bytes(b"")
    (raw / link).symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match=link):
        prepare(raw, tmp_path / "out", ARGS)


def test_links_to_themselves_are_named(raw, tmp_path):
    (raw / "loop.wav").symlink_to("loop.wav")
    with pytest.raises(ValueError, match=r"must hold the files themselves: 1 problem\n  .*raw/loop\.wav is no file"):
        prepare(raw, tmp_path / "out", ARGS)
    with pytest.raises(ValueError, match=r"RAW .*loop\.wav is not a folder"):
        prepare(raw / "loop.wav", tmp_path / "out", ARGS)
    (raw / "loop.wav").rename(tmp_path / "loop.wav")
    args = PrepareArguments(num_workers=1, manifest=[str(tmp_path / "loop.wav")])
    with pytest.raises(ValueError, match=r"loop\.wav"):
        prepare(raw, tmp_path / "out", args)


def test_a_name_of_the_greatest_length_is_prepared(raw, tmp_path):
    (raw / "one.flac").rename(raw / f"{'x' * 250}.flac")
    assert prepare(raw, tmp_path / "out", ARGS).bad == {}
    assert (tmp_path / "out" / f"{'x' * 250}.wav").is_file()


def test_a_link_inside_the_folder_is_a_file_of_its_own(raw, tmp_path):
    (raw / "again.flac").symlink_to(raw / "one.flac")
    prepare(raw, tmp_path / "out", ARGS)
    again = tmp_path / "out" / "again.wav"
    assert not again.is_symlink()
    assert again.read_bytes() == (tmp_path / "out" / "one.wav").read_bytes()


def test_folders_without_audio_or_of_the_wrong_kind_are_refused(raw, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no audio file"):
        prepare(tmp_path / "empty", tmp_path / "out", ARGS)
    with pytest.raises(ValueError, match="is not a folder"):
        prepare(raw / "README", tmp_path / "out", ARGS)
    with pytest.raises(ValueError, match="is not a folder"):
        prepare(raw, (tmp_path / "file", (tmp_path / "file").write_text(""))[0], ARGS)
