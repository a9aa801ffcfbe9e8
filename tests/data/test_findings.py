import pickle

import pytest

from avb_hf.data.findings import KINDS, CorpusError, Finding, raise_errors


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({}, "odd"),
        ({"path": "a.wav"}, "a.wav: odd"),
        ({"file_id": "7"}, "File_ID 7: odd"),
        ({"place": "t.csv, line 2"}, "t.csv, line 2: odd"),
        ({"file_id": "7", "path": "a.wav", "place": "t.csv, line 2"}, "t.csv, line 2, File_ID 7 (a.wav): odd"),
    ],
)
def test_a_finding_says_where_it_is(where, text):
    assert str(Finding("bad_row", "odd", **where)) == text


def test_only_errors_are_raised_and_all_are_counted():
    warnings = [Finding("silent_audio", "quiet", "7")]
    raise_errors(warnings, "here")
    errors = [Finding("bad_row", f"row {number}") for number in range(23)]
    with pytest.raises(CorpusError) as caught:
        raise_errors(warnings + errors, "here")
    lines = str(caught.value).splitlines()
    assert lines[:2] == ["here: 23 problems", "  row 0"]
    assert lines[20:] == ["  row 19", "  ... and 3 more"]
    assert caught.value.findings == errors
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_a_word_with_a_meaning_and_only_errors_can_be_left_out(kind):
    assert kind.replace("_", "").isalnum()
    assert kind == kind.lower()
    assert KINDS[kind].meaning
    assert KINDS[kind].severity == "error" or not KINDS[kind].skippable
