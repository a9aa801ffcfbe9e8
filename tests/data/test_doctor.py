"""Each kind of defect is planted alone and all of them together, and found by name with none invented."""

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from avb_hf.data.arguments import DataArguments
from avb_hf.data.doctor import diagnose
from avb_hf.data.findings import KINDS, CorpusError
from avb_hf.data.sources import infer_task, load_corpus
from avb_hf.tasks import EMOGATOR_CATEGORIES

RATE = 16_000


def tone(seconds=0.5, rate=RATE, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def write(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def swap_columns(corpus):
    corpus.table = corpus.table[["Split", "Arousal", "Valence", *corpus.table.columns[3:]]]


def tear_a_speaker(corpus):
    corpus.table["Speaker"] = corpus.table.index
    corpus.table.loc[["00031", "00032"], "Speaker"] = "anna"


def scale(corpus):
    corpus.table["Valence"] = (1 + 8 * corpus.table["Valence"].astype(float)).astype(str)


def cut(corpus, file_id):
    path = corpus.audio(file_id)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return file_id


def link_inside(corpus):
    corpus.audio("alias").symlink_to(corpus.audio("00033"))
    corpus.row("alias")
    return "alias"


def same_samples(corpus, one, other):
    samples, rate = soundfile.read(corpus.audio(one), dtype="int16")
    soundfile.write(corpus.audio(other), samples, rate, format="FLAC")  # another container
    return other


def stereo(corpus, file_id, factor):
    return corpus.sound(file_id, np.stack([tone(), factor * tone()], 1))


# Kind: what plants it in a corpus, next to all the others, and returns the File_ID that it is found at.
TOGETHER = {
    "speaker_in_two_splits": tear_a_speaker,
    "columns_out_of_order": swap_columns,
    "labels_on_1_9_scale": scale,
    "bad_row": lambda corpus: corpus.lines.append("[00001],Train"),
    "bad_file_id": lambda corpus: corpus.row("[0 1]"),
    "escaping_path": lambda corpus: corpus.row("[../00001]"),
    "unknown_split": lambda corpus: corpus.label("00001", "Split", "Holdout"),
    "duplicate_file_id": lambda corpus: corpus.row("[00003]") or "00003",
    "duplicate_path": link_inside,
    "missing_label": lambda corpus: corpus.label("00002", "Arousal", ""),
    "bad_label": lambda corpus: corpus.label("00005", "Arousal", "x"),
    "label_out_of_range": lambda corpus: corpus.label("00006", "Arousal", "1.5"),
    "unusable_test_labels": lambda corpus: corpus.label("00004", "Arousal", "-1") and None,
    "ambiguous_audio": lambda corpus: shutil.copytree(
        corpus.folder / "audio" / "any",
        corpus.folder / "audio" / "more",
        ignore=lambda folder, names: set(names) - {"00009.wav"},
    )
    and "00009",
    "missing_audio": lambda corpus: corpus.audio("00010").unlink() or "00010",
    "unreadable_audio": lambda corpus: write(corpus.audio("00013"), b"<html></html>") or "00013",
    "empty_audio": lambda corpus: write(corpus.audio("00014")) or "00014",
    "truncated_audio": lambda corpus: cut(corpus, "00017"),
    "nan_audio": lambda corpus: corpus.sound("00018", np.r_[tone(), np.nan], subtype="FLOAT"),
    "too_short": lambda corpus: corpus.sound("00021", tone(0.02)),
    "too_long": lambda corpus: corpus.sound("00022", tone(31)),
    "cancelling_channels": lambda corpus: stereo(corpus, "00025", -1),
    "several_channels": lambda corpus: stereo(corpus, "00026", 0.5),
    "duplicated_audio": lambda corpus: same_samples(corpus, "00029", "00030"),
    "duplicated_audio_across_splits": lambda corpus: same_samples(corpus, "00007", "00012"),
    "silent_audio": lambda corpus: corpus.sound("00034", tone(amplitude=0.00009), subtype="FLOAT"),
    "clipped_audio": lambda corpus: corpus.sound("00011", np.clip(tone(amplitude=1.2), -1, 1)),
    "other_sampling_rate": lambda corpus: corpus.sound("00015", tone(rate=44_100), 44_100),
    "orphan_audio": lambda corpus: shutil.copy(corpus.audio("00023"), corpus.audio("nobody")) and None,
}  # fmt: skip
# What is true as well of a file with such a defect.
ALSO = {"cancelling_channels": {"several_channels"}}


def name_columns_otherwise(corpus):
    corpus.table = corpus.table.rename(columns={"Valence": "valence"})


def make_manifest(corpus, **columns):
    paths = [str(path.relative_to(corpus.folder)) for path in sorted(corpus.folder.rglob("*.wav"))]
    path = corpus.folder / "clips.csv"
    pd.DataFrame({"path": paths, "joy": np.linspace(0, 1, len(paths))} | columns).to_csv(path, index=False)
    corpus.flags |= {"source": "manifest", "task": None, "manifest": str(path), "label_columns": ["joy"]}


def make_emogator(corpus, lines):
    corpus.flags |= {"source": "emogator", "task": None, "data_dir": str(corpus.folder / "emogator")}
    write(corpus.folder / "emogator" / "split.csv", "\n".join(["contributor,split", *lines]).encode())
    for index, path in enumerate(sorted(corpus.folder.rglob("*.wav"))[: 18 * len(lines)]):
        name = f"{index % 3:06d}-{index // 3 % 2 + 1:02d}-{index // 6}.mp3"
        shutil.copy(path, corpus.folder / "emogator" / name)


def two_speakers(corpus):
    make_manifest(corpus, who=["anna", "ben"] * 18)
    corpus.flags |= {"speaker_column": "who"}


def forget_a_class(corpus):
    make_manifest(corpus, kind=["sob", "sigh", "gasp"] * 12)
    corpus.flags |= {"label_columns": ["kind"], "class_names": ["sob", "sigh"]}


def train_on_all(corpus):
    corpus.label(corpus.table["Split"] == "Val", "Split", "Train")


def unlisted(corpus):
    make_emogator(corpus, ["000000,train", "000001,val"])
    task = corpus.folder / "emogator" / "pair.yaml"
    task.write_text(
        f"labels: {list(EMOGATOR_CATEGORIES[:2])}\nproblem_type: single_label_classification\nclass_column: category\n"
    )
    corpus.flags["task"] = str(task)


def classify(corpus, kinds):
    make_manifest(corpus, kind=kinds, part=["train"] * 24 + ["val"] * 6 + ["test"] * 6)
    corpus.flags |= {"label_columns": ["kind"], "split_column": "part"}


# Defects that leave nothing else to be found, or that other sources have.
ALONE = {
    "unreadable_table": lambda corpus: corpus.lines.append('"'),
    "wrong_columns": name_columns_otherwise,
    "empty_split": train_on_all,
    "unwanted_channels": lambda corpus: corpus.flags.update(channels="error") or stereo(corpus, "00026", 0.5),
    "unlisted_speaker": unlisted,
    "no_clips": lambda corpus: make_emogator(corpus, []),
    "undrawable_split": two_speakers,
    "unknown_class": forget_a_class,
    "too_few_classes": lambda corpus: classify(corpus, ["sob"] * 36),
    "similar_classes": lambda corpus: classify(corpus, ["sob", " Sob", "sigh"] * 12),
    "rare_class": lambda corpus: classify(
        corpus, ["gasp", "gasp", *["sob", "sigh"] * 14, *["sob", "sigh", "gasp"] * 2]
    ),
    "classes_as_numbers": lambda corpus: classify(corpus, ["0", "1"] * 18),
}


def test_every_kind_is_planted():
    assert {*TOGETHER, *ALONE} == set(KINDS)
    assert not set(TOGETHER) & set(ALONE)


@pytest.mark.wide
@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_is_found_by_name_and_none_is_invented(corpus, kind):
    file_id = (TOGETHER | ALONE)[kind](corpus)
    args, found = corpus.findings()
    if kind == "unknown_class":
        assert {name for name, _ in found} == {kind}
        assert len(found) == 12
    else:
        assert found == {(name, file_id) for name in {kind, *ALSO.get(kind, set())}}
    is_refused_when_samples_are_heard = kind in ("nan_audio", "cancelling_channels", "duplicated_audio_across_splits")
    if KINDS[kind].severity == "warning" or is_refused_when_samples_are_heard:
        load_corpus(infer_task(args), args)
    else:
        with pytest.raises(CorpusError):
            load_corpus(infer_task(args), args)


def test_all_defects_of_one_corpus_are_found_in_one_scan(corpus):
    expected = set()
    for kind, plant in TOGETHER.items():
        file_id = plant(corpus)
        expected |= {(name, file_id) for name in {kind, *ALSO.get(kind, set())}}
    assert corpus.findings()[1] == expected


def test_a_clean_corpus_has_a_clean_bill(corpus):
    assert corpus.findings()[1] == set()
    scan = diagnose(DataArguments(task="high", data_dir=str(corpus.folder)))
    assert scan.findings == []
    assert {name: split["clips"] for name, split in scan.splits.items()} == {"train": 18, "validation": 9, "test": 9}
    seconds = sum(soundfile.info(path).duration for path in (corpus.folder / "audio").rglob("*.wav"))
    assert sum(split["hours"] for split in scan.splits.values()) == pytest.approx(seconds / 3600, abs=2e-4)
    assert scan.splits["train"] | {"clips": 0, "hours": 0} == {
        "clips": 0, "hours": 0, "sampling_rates": {"16000": 18}, "channels": {"1": 18}, "formats": {"WAV": 18},
    }  # fmt: skip


@pytest.mark.parametrize("placeholder", ["", "-1", "0.5"])
def test_placeholders_of_an_unlabelled_test_split_are_no_finding(corpus, placeholder):
    corpus.table.loc[corpus.table["Split"] == "Test", ["Valence", "Arousal"]] = placeholder
    assert corpus.findings()[1] == set()


@pytest.mark.parametrize("path", ["../other/1.wav", "a/../../1.wav"])
def test_a_path_of_a_manifest_may_not_lead_out(corpus, path):
    make_manifest(corpus)
    with (corpus.folder / "clips.csv").open("a") as file:
        file.write(f"{path},0.5\n")
    assert corpus.findings()[1] == {("escaping_path", path)}


@pytest.mark.parametrize("name", ["/etc/passwd", "[/etc/passwd]", "..\\00001"])
def test_a_file_id_may_not_lead_out(corpus, name):
    corpus.row(name)
    assert corpus.findings()[1] == {("escaping_path", None)}


def test_a_link_may_not_lead_out(corpus, tmp_path):
    shutil.move(corpus.audio("00005"), tmp_path / "outside.wav")
    corpus.audio("00005").symlink_to(tmp_path / "outside.wav")
    assert corpus.findings()[1] == {("escaping_path", "00005")}


@pytest.mark.parametrize(
    ("samples", "is_clipped"),
    [
        (np.clip(tone(amplitude=1.2), -1, 1), True),
        (1.5 * tone(amplitude=1.0), True),
        (tone(amplitude=0.99), False),
        (np.r_[tone(), [1.0, -1.0, 1.0], tone()], False),
        (np.r_[tone(), [1.0, -1.0, 1.0, -1.0], tone()], True),
        (np.stack([tone(), np.clip(tone(amplitude=1.2), -1, 1)], 1), True),
    ],
)
def test_clipping_is_a_run_of_full_samples(corpus, samples, is_clipped):
    corpus.sound("00001", samples, subtype="FLOAT")
    assert (("clipped_audio", "00001") in corpus.findings()[1]) == is_clipped


def test_without_decoding_only_the_header_tells(corpus):
    for kind in ("nan_audio", "duplicated_audio", "other_sampling_rate", "truncated_audio"):
        TOGETHER[kind](corpus)
    args, everything = corpus.findings()
    quick = {(finding.kind, finding.file_id) for finding in diagnose(args, headers_only=True).findings}
    assert quick == {("other_sampling_rate", "00015"), ("truncated_audio", "00017")}
    assert len(everything) == 4


def test_threads_find_the_same(corpus):
    for kind in ("nan_audio", "duplicated_audio", "other_sampling_rate", "truncated_audio"):
        TOGETHER[kind](corpus)
    args, _ = corpus.findings()
    assert diagnose(args, num_workers=4) == diagnose(args)
