import pytest

from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.path_texts import TEXT_SUFFIXES, PathFinder
from avb_hf.data.prepare.run import prepare

ARGS = PrepareArguments(num_workers=1)
OUTPUTS = {"c.flac": "c.wav", "a/b c.MP3": "a/b c.wav", "a/ü.ogg": "a/ü.wav"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("path;split\nc.flac;train\n", "c.flac"),
        ("c.flac", "c.flac"),
        ('{"path":"c.flac"}', "c.flac"),
        ("see /data/raw/c.flac.", "c.flac"),
        ("nothing\n./a/b c.MP3|x", "a/b c.MP3"),
        ("'a/ü.ogg'", "a/ü.ogg"),
        ("abc.flac x-c.flac üc.flac .c.flac", None),
        ("c.flacs c.flac.bak c.flac-2", None),
        ("b c.MP3 c.FLAC c.wav", None),
        ("", None),
    ],
)
def test_paths_are_found_as_whole_names_in_any_layout(text, found):
    assert PathFinder(OUTPUTS).find(text.encode()) == (found and (found, OUTPUTS[found]))


def test_where_nothing_changes_nothing_is_found():
    assert PathFinder({}).find(b"c.flac") is None


@pytest.mark.parametrize("suffix", TEXT_SUFFIXES)
def test_a_text_that_names_a_moved_recording_is_copied_and_listed(raw, tmp_path, suffix):
    (raw / f"list{suffix}").write_text("path;split\nb/three.ogg;train\n")
    (raw / f"fine{suffix}").write_text("file\nthree.wav\n")
    warning = "is copied as it is, and names b/three.ogg, which is b/three.wav in OUT"
    for _ in range(2):  # the second call makes nothing, and tells it all the same
        report = prepare(raw, tmp_path / "out", ARGS)
        assert report.warnings == {f"list{suffix}": warning}
        assert f"warning: list{suffix}: {warning}\n" in report.describe()
    assert (tmp_path / "out" / f"list{suffix}").read_bytes() == (raw / f"list{suffix}").read_bytes()


def test_other_files_are_not_read(raw, tmp_path):
    (raw / "archive.zip").write_bytes(b"c.flac one.flac")
    assert prepare(raw, tmp_path / "out", ARGS).warnings == {}
