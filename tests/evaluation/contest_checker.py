"""A strict reader of A-VB contest files that shares nothing with the package: the format is spelled out here."""

import math
import re

HEADERS = {
    "High": "File_ID,Awe,Excitement,Amusement,Awkwardness,Fear,Horror,Distress,Triumph,Sadness,Surprise",
    "Two": "File_ID,Valence,Arousal",
    "Culture": (
        "File_ID,"
        "China_Awe,China_Excitement,China_Amusement,China_Awkwardness,China_Fear,China_Horror,China_Distress,"
        "China_Triumph,China_Sadness,"
        "United States_Awe,United States_Excitement,United States_Amusement,United States_Awkwardness,"
        "United States_Fear,United States_Horror,United States_Distress,United States_Triumph,United States_Sadness,"
        "South Africa_Awe,South Africa_Excitement,South Africa_Amusement,South Africa_Awkwardness,South Africa_Fear,"
        "South Africa_Horror,South Africa_Distress,South Africa_Triumph,South Africa_Sadness,"
        "Venezuela_Awe,Venezuela_Excitement,Venezuela_Amusement,Venezuela_Awkwardness,Venezuela_Fear,"
        "Venezuela_Horror,Venezuela_Distress,Venezuela_Triumph,Venezuela_Sadness,"
        "China_Surprise,United States_Surprise,South Africa_Surprise,Venezuela_Surprise"
    ),
    "Type": "File_ID,Voc_Type",
}
CLASSES = ("Gasp", "Laugh", "Cry", "Scream", "Grunt", "Groan", "Pant", "Other")
NAME = re.compile(r"A-VB-(High|Two|Culture|Type)_([A-Za-z0-9-]+)_([1-9][0-9]*)\.csv")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


def check_contest_file(path, expected_ids):
    """Return what is wrong with a contest file, as a list of sentences; `expected_ids` are without brackets."""
    name = NAME.fullmatch(path.name)
    if not name:
        return [f"bad file name {path.name}"]
    text = path.read_bytes().decode("utf-8")
    lines = text.split("\n")
    problems = _text_problems(text, lines)
    header, rows = lines[0], [line.split(",") for line in lines[1:-1]]
    if header != HEADERS[name[1]]:
        problems.append(f"bad header {header!r}")
    width = HEADERS[name[1]].count(",") + 1
    for number, row in enumerate(rows, start=2):
        if len(row) != width:
            problems.append(f"line {number}: {len(row)} cells instead of {width}")
        is_valid = _is_class if name[1] == "Type" else _is_number
        problems += [f"line {number}: bad value {cell!r}" for cell in row[1:] if not is_valid(cell)]
    return problems + _id_problems([row[0] for row in rows], expected_ids)


def _text_problems(text, lines):
    problems = [f"forbidden character {char!r}" for char in '\ufeff\r"\t;' if char in text]
    if lines[-1] != "" or "" in lines[:-1]:
        problems.append("the file must end with one line break and have no empty line")
    return problems


def _is_class(cell):
    return cell in CLASSES


def _is_number(cell):
    return bool(NUMBER.fullmatch(cell)) and math.isfinite(float(cell))


def _id_problems(ids, expected_ids):
    problems = [f"bad File_ID {cell!r}" for cell in ids if not re.fullmatch(r"\[[^\[\], ]+\]", cell)]
    bare = [cell[1:-1] for cell in ids]
    if bare != sorted(bare):
        problems.append("File_IDs are not sorted")
    if len(set(ids)) != len(ids):
        problems.append("a File_ID occurs twice")
    if set(bare) != set(expected_ids):
        problems.append(f"File_IDs differ from the expected: {sorted(set(bare) ^ set(expected_ids))}")
    return problems
