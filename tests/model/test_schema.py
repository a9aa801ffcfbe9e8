"""What the pipeline returns is what its JSON schema says, and the schema says no to other things."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch

from avb_hf.model import VocalBurstPipeline

RATE = 16_000
KINDS = {
    "regression": {"label_range": (1, 9)},
    "unbounded": {},
    "classes": {"problem_type": "single_label_classification"},
}
ARGUMENTS = ("as_list", "segment", "trajectory")
CALLS = [dict(zip(ARGUMENTS, values, strict=True)) for values in itertools.product((False, True), repeat=3)]
TYPES = {"object": dict, "array": list, "number": (int, float)}
KNOWN = {"$schema", "type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "enum"}
KNOWN |= {"minimum", "maximum", "description"}


def problems(value, schema, where="$"):
    """The keywords of JSON Schema that ours use, by the words of its specification."""
    assert schema.keys() <= KNOWN, schema.keys() - KNOWN
    if "type" in schema and (not isinstance(value, TYPES[schema["type"]]) or isinstance(value, bool)):
        return [f"{where} is no {schema['type']}"]
    found = [f"{where} is none of the values"] if value not in schema.get("enum", [value]) else []
    if isinstance(value, dict):
        found += [f"{where} lacks {name}" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            if name in schema["properties"]:
                found += problems(item, schema["properties"][name], f"{where}.{name}")
            elif not schema.get("additionalProperties", True):
                found.append(f"{where} has {name}")
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            found.append(f"{where} has {len(value)} items")
        for index, item in enumerate(value):
            found += problems(item, schema["items"], f"{where}[{index}]")
    elif isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{where} is out of range")
    return found


@pytest.fixture(scope="module")
def recording():
    clip = 1e-3 * np.random.default_rng(2).standard_normal(4 * RATE)
    for start in (RATE, 3 * RATE):
        clip[start : start + RATE // 2] += 0.2 * np.sin(np.arange(RATE // 2))
    return {"array": clip, "sampling_rate": RATE}


@pytest.fixture(scope="module")
def pipes(make_model):
    return {kind: VocalBurstPipeline(make_model(**fields)) for kind, fields in KINDS.items()}


@pytest.mark.wide
@pytest.mark.parametrize("call", CALLS, ids=lambda call: "-".join(name for name in call if call[name]) or "plain")
@pytest.mark.parametrize("kind", KINDS)
def test_results_fit_their_schema_and_no_other(pipes, kind, call, recording):
    pipe = pipes[kind]
    result = json.loads(json.dumps(pipe(recording, **call)))
    assert len(result) == 2 if call["segment"] else result
    for other in CALLS:
        schema = json.loads(json.dumps(pipe.output_schema(**other)))
        assert (problems(result, schema) == []) == (other == call)


def spoil(result, change):
    spoiled = copy.deepcopy(result)
    change(spoiled)
    return spoiled


SPOILED = {
    "a label is missing": lambda span: span["scores"].pop("LABEL_0"),
    "a label too many": lambda span: span["scores"].update(other=0.5),
    "a score in words": lambda span: span["scores"].update(LABEL_0="high"),
    "a score out of range": lambda span: span["scores"].update(LABEL_0=9.5),
    "no end": lambda span: span.pop("end"),
    "a start before the recording": lambda span: span.update(start=-1.0),
    "no times": lambda span: span["trajectory"].pop("times"),
    "a frame in words": lambda span: span["trajectory"]["outputs"]["LABEL_1"].append("0"),
    "nothing": lambda span: span.clear(),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_wrong_does_not_fit(pipes, recording, case):
    result = pipes["regression"](recording, trajectory=True)
    schema = pipes["regression"].output_schema(trajectory=True)
    assert problems(result, schema) == []
    assert len(problems(spoil(result, SPOILED[case]), schema)) >= 1


@pytest.mark.parametrize(("label_range", "sign"), [((0.7, 0.9), -1), ((0, 0.1), 1)])
def test_a_score_at_a_bound_that_float32_rounds_outwards_lies_inside(make_model, label_range, sign):
    low, high = label_range
    assert float(np.float32(low)) < low or float(np.float32(high)) > high
    model = make_model(label_range=label_range)
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.constant_(model.classifier.bias, sign * 100.0)
    pipe = VocalBurstPipeline(model)
    clip = {"array": 0.1 * np.sin(np.arange(RATE)), "sampling_rate": RATE}
    for call in CALLS:
        result = pipe(clip, **call)
        assert problems(result, pipe.output_schema(**call)) == [], call
    assert pipe(clip)["LABEL_0"] == (low if sign < 0 else high)


def test_no_burst_is_an_empty_list(pipes):
    silence = {"array": np.zeros(RATE), "sampling_rate": RATE}
    pipe = pipes["classes"]
    assert problems(pipe(silence, segment=True), pipe.output_schema(segment=True)) == []
