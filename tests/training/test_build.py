"""From flags to a model: class weights, and what cannot be built."""

import json

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from avb_hf.tasks import TASKS, task_from_mapping
from avb_hf.training.arguments import ModelArguments, RunArguments
from avb_hf.training.build import balanced_class_weights, build_for_run, build_model, read_encoder_config

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


@pytest.mark.parametrize("do_normalize", [True, False])
def test_normalisation_by_flag(tiny_backbone, tiny_backbone_dir, tmp_path, do_normalize):
    for source in ({}, {"encoder_config": None, "model_name_or_path": str(tiny_backbone_dir)}):
        args = arguments(tiny_backbone, do_normalize=do_normalize, **source)
        model, extractor = build_model(TASKS["two"], args, "none")
        loud = extractor(np.array([3.0, 1.0] * 2_000), return_tensors="np")["input_values"][0]
        np.testing.assert_allclose(loud[:2], [1, -1] if do_normalize else [3, 1], atol=1e-4)
    for part in (model, extractor):
        part.save_pretrained(tmp_path)
    same = ModelArguments(model_name_or_path=str(tmp_path), do_normalize=do_normalize)
    assert build_model(TASKS["two"], same, "none")[1].do_normalize is do_normalize
    other = ModelArguments(model_name_or_path=str(tmp_path), do_normalize=not do_normalize)
    with pytest.raises(ValueError, match=f"--do_normalize {not do_normalize}: .* was made with {do_normalize}"):
        build_model(TASKS["two"], other, "none")


@pytest.mark.parametrize(("loss", "resolved"), [("ccc", "batch"), ("mse", "none")])
def test_batch_norm_for_the_ccc_fits_the_checkpoint_that_it_made(tiny_backbone, tmp_path, loss, resolved):
    args = arguments(tiny_backbone, output_norm="batch_for_ccc", loss=loss)
    model, extractor = build_model(TASKS["two"], args, "none")
    assert model.config.output_norm == resolved
    for part in (model, extractor):
        part.save_pretrained(tmp_path)
    again = ModelArguments(model_name_or_path=str(tmp_path), output_norm="batch_for_ccc")
    assert build_model(TASKS["two"], again, "none")[0].config.output_norm == resolved
    other = ModelArguments(model_name_or_path=str(tmp_path), output_norm={"batch": "none", "none": "batch"}[resolved])
    with pytest.raises(ValueError, match=f"made with {resolved}"):
        build_model(TASKS["two"], other, "none")


def test_how_the_ccc_is_reduced_is_a_matter_of_training(tiny_backbone, tmp_path):
    model, extractor = build_model(TASKS["high"], arguments(tiny_backbone), "none")
    summing, _ = build_model(TASKS["high"], arguments(tiny_backbone, ccc_reduction="sum"), "none")
    scores, labels = torch.rand(2, 6, 10)
    assert summing.compute_loss(scores, labels).item() == pytest.approx(10 * model.compute_loss(scores, labels).item())
    for part in (model, extractor):
        part.save_pretrained(tmp_path)
    args = ModelArguments(model_name_or_path=str(tmp_path), ccc_reduction="sum")
    assert build_model(TASKS["high"], args, "none")[0].config.ccc_reduction == "sum"


def test_frozen_dropout_by_flag(tiny_backbone):
    run_args = RunArguments(freeze="backbone", frozen_dropout=True, cache="off")
    model, _ = build_for_run(TASKS["two"], arguments(tiny_backbone), run_args)
    assert model.train().encoder.training
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    silent, _ = build_for_run(TASKS["two"], arguments(tiny_backbone), RunArguments(freeze="backbone"))
    assert not silent.train().encoder.training


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
