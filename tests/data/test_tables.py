import pandas as pd
import pytest

from avb_hf.data import tables
from avb_hf.data.tables import forbid_other_columns, read_table, rename_columns, require_columns


def table(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path)


@pytest.mark.parametrize(
    "content", ["id,x\n00001,1.0\nNA,\n", "\ufeffid,x\r\n00001,1.0\r\nNA,\r\n", 'id,x\r"00001",1.0\rNA,""\r']
)
def test_cells_stay_text_with_bom_and_any_line_end(tmp_path, content):
    read = table(tmp_path, content)
    assert read.columns == ("id", "x")
    assert read.column("id") == ["00001", "NA"]
    assert read.column("x") == ["1.0", ""]
    assert [(row.place, row.cells["x"]) for row in read.rows] == [("t.csv, line 2", "1.0"), ("t.csv, line 3", "")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("id,x\n", "no rows"),
        ("id,x,x\n1,2,3\n", r"more than once: \['x'\]"),
        ("id,x\n1,2\n3\n4,5,6\n", r"(?s)2 problems.*line 3: 1 cells.*line 4: 3 cells"),
        ('id,x\n1,2\n"3,4\n', "line 3: unexpected end of data"),
        ("id,x\n1,2\n".encode("utf-16"), "must be UTF-8"),
        ("id,x\nÄ,2\n".encode("latin-1"), "must be UTF-8"),
    ],
)
def test_malformed_tables_are_errors_that_say_where(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        table(tmp_path, content)


def test_missing_files_and_unknown_kinds_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"gone.csv: the table does not exist"):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(ValueError, match=r"must be one of \['.csv', '.tsv', '.parquet'\], got '.xlsx'"):
        table(tmp_path, "id\n1\n", "t.xlsx")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        table(tmp_path, "id\n1\n", "t.parquet")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_of_any_size_keeps_order_and_places(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(tables, "_CHUNK", 3)
    frame = pd.DataFrame({"id": [f"{number:02}" for number in range(10)], "x": range(10)})
    getattr(frame, f"to_{suffix}")(tmp_path / f"t.{suffix}", index=False)
    read = read_table(tmp_path / f"t.{suffix}")
    line = {"csv": "line {}", "parquet": "row {}"}[suffix].format
    start = {"csv": 2, "parquet": 1}[suffix]
    assert len(read) == 10
    assert [(row.place, row.cells["id"], row.cells["x"]) for row in read.rows] == [
        (f"t.{suffix}, {line(number + start)}", f"{number:02}", str(number)) for number in range(10)
    ]
    assert read.take(["x"], [0, 4, 9]).to_pydict() == {"x": ["0", "4", "9"]}
    assert read.take(["x", "id"], []).to_pydict() == {"x": [], "id": []}


def test_rows_that_do_not_fit_are_left_out_where_they_are_collected(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_CHUNK", 2)
    (tmp_path / "t.csv").write_text("id,x\n0,0\n1\n\n2,2,2\n3\n4,4\n")
    findings = []
    read = read_table(tmp_path / "t.csv", findings)
    assert [finding.place for finding in findings] == ["t.csv, line 3", "t.csv, line 5", "t.csv, line 6"]
    assert {finding.kind for finding in findings} == {"bad_row"}
    assert (read.places, read.column("x")) == (["t.csv, line 2", "t.csv, line 7"], ["0", "4"])


@pytest.mark.parametrize("separator", [";", "\t"])
def test_the_wrong_separator_is_named(tmp_path, separator):
    read = table(tmp_path, f"id{separator}x\n1{separator}2\n")
    with pytest.raises(ValueError, match="looks separated by"):
        require_columns(read, ["id"])


def test_columns_are_required_and_others_are_forbidden(tmp_path):
    read = table(tmp_path, "id,x\n1,2\n")
    with pytest.raises(ValueError, match=r"lacks the columns \['y', 'z'\]; it has \['id', 'x'\]"):
        require_columns(read, ["id", "y", "z"])
    with pytest.raises(ValueError, match=r"unknown columns \['x'\]"):
        forbid_other_columns(read, ["id"])


def test_a_misspelt_column_is_renamed_unless_the_right_one_is_there_too(tmp_path):
    read = rename_columns(table(tmp_path, "id,y\n1,2\n"), {"y": "x", "absent": "z"})
    assert read.columns == ("id", "x")
    assert read.column("x") == ["2"]
    with pytest.raises(ValueError, match="two spellings"):
        rename_columns(table(tmp_path, "x,y\n1,2\n"), {"y": "x"})


def test_tsv_and_parquet_hold_the_same_text_as_csv(tmp_path):
    frame = pd.DataFrame({"id": ["007", "a,b"], "x": [0.1, None], "n": [1, 2]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "t.parquet")
    tables = [read_table(tmp_path / f"t.{suffix}") for suffix in ("csv", "tsv", "parquet")]
    for read in tables:
        assert read.column("id") == ["007", "a,b"]
        assert read.column("n") == ["1", "2"]
        assert read.column("x")[0] == "0.1"
        assert read.column("x")[1] in ("", "nan")
    assert tables[2].places == ["t.parquet, row 1", "t.parquet, row 2"]
