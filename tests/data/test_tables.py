import pandas as pd
import pytest

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
    assert [row.place for row in read.rows] == ["t.csv, line 2", "t.csv, line 3"]


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
    assert tables[2].rows[0].place == "t.parquet, row 1"
