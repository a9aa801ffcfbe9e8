"""From flags to a model: class weights, and what cannot be built."""

import json

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from avb_hf.tasks import TASKS, task_from_mapping
from avb_hf.training.arguments import ModelArguments
from avb_hf.training.build import balanced_class_weights, build_model, read_encoder_config

TASK = task_from_mapping(
    {"labels": ["a", "b", "c"], "problem_type": "single_label_classification", "class_column": "word"}, "abc"
)


def arguments(tiny_backbone, **fields):
    return ModelArguments(**{"encoder_config": json.dumps(tiny_backbone), "rnn_hidden_size": 8} | fields)


def test_balanced_weights_are_those_of_sklearn():
    labels = [0] * 7 + [1] * 2 + [2] * 5
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_class_weights([*labels, -100, -100], TASK), expected, rtol=1e-12)


def test_balanced_weights_need_every_class():
    with pytest.raises(ValueError, match=r"\['b'\]"):
        balanced_class_weights([0, 2, 2], TASK)


def test_balanced_weights_are_stored(tiny_backbone):
    args = arguments(tiny_backbone, class_weights="balanced")
    model, _ = build_model(TASK, args, "none", [0, 1, 1, 2])
    np.testing.assert_allclose(model.config.class_weights, [4 / 3, 2 / 3, 4 / 3])


def test_balanced_weights_are_for_classes(tiny_backbone):
    with pytest.raises(ValueError, match="--class_weights balanced is for classifications"):
        build_model(TASKS["two"], arguments(tiny_backbone, class_weights="balanced"), "none", [])


@pytest.mark.parametrize("name", TASKS)
def test_the_task_is_in_the_configuration(tiny_backbone, name):
    task = TASKS[name]
    config = build_model(task, arguments(tiny_backbone), "none")[0].config
    assert config.label_names == list(task.labels)
    assert (config.problem_type, config.loss) == (task.problem_type, task.loss)
    assert config.output_activation == ("none" if task.is_classification else "sigmoid")


def test_a_flag_beats_the_tasks_loss(tiny_backbone):
    assert build_model(TASKS["two"], arguments(tiny_backbone, loss="mse"), "none")[0].config.loss == "mse"


@pytest.mark.parametrize("fields", [{"encoder_config": None}, {"model_name_or_path": "somewhere"}])
def test_one_of_two_sources_of_weights(tiny_backbone, fields):
    with pytest.raises(ValueError, match=r"one of --model_name_or_path .* --encoder_config"):
        build_model(TASKS["two"], arguments(tiny_backbone, **fields), "none")


@pytest.mark.parametrize(("freeze", "trained"), [("none", True), ("feature_encoder", False), ("backbone", False)])
def test_freezing(tiny_backbone, freeze, trained):
    model, _ = build_model(TASKS["two"], arguments(tiny_backbone), freeze)
    gradients = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert {flag for name, flag in gradients.items() if "conv_layers" in name} == {trained}
    assert gradients["classifier.weight"]
    blocks = {flag for name, flag in gradients.items() if ".layers." in name and "conv" not in name}
    assert blocks == {freeze != "backbone"}


def test_a_backbone_folder_and_a_checkpoint_of_ours(tiny_backbone, tiny_backbone_dir, tmp_path):
    args = arguments(tiny_backbone, encoder_config=None, model_name_or_path=str(tiny_backbone_dir))
    model, extractor = build_model(TASKS["two"], args, "none")
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    args.model_name_or_path = str(tmp_path)
    again, _ = build_model(TASKS["two"], args, "none")
    assert all(
        np.array_equal(a.detach(), b.detach()) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    with pytest.raises(ValueError, match=r"predicts \['Valence', 'Arousal'\].*task 'high'"):
        build_model(TASKS["high"], args, "none")


def test_a_head_that_the_checkpoint_has_not_is_refused(tiny_backbone, tmp_path):
    model, extractor = build_model(TASKS["two"], arguments(tiny_backbone, pooling="mean"), "none")
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    same = ModelArguments(model_name_or_path=str(tmp_path), pooling="mean", rnn_hidden_size=8)
    assert build_model(TASKS["two"], same, "none")[0].config.pooling == "mean"
    with pytest.raises(ValueError, match=r"--pooling max.*made with mean"):
        build_model(TASKS["two"], ModelArguments(model_name_or_path=str(tmp_path), pooling="max"), "none")


def test_encoder_config_is_inline_json_or_a_file(tmp_path):
    path = tmp_path / "encoder.json"
    path.write_text('{"model_type": "wav2vec2"}')
    assert read_encoder_config(str(path)) == read_encoder_config(' {"model_type": "wav2vec2"}')


@pytest.mark.parametrize(("text", "message"), [("{oops", "no valid JSON"), ("absent.json", "absent.json")])
def test_encoder_config_that_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        read_encoder_config(text)


def test_encoder_config_must_be_a_mapping(tmp_path):
    path = tmp_path / "encoder.json"
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="mapping"):
        read_encoder_config(str(path))
