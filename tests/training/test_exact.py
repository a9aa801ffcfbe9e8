"""The loss and gradients of one large batch, however it is cut over accumulation steps and processes."""

import json
import subprocess
import sys
from functools import partial
from itertools import product

import pytest
import torch
import torch.distributed as dist

from avb_hf import VocalBurstConfig, Wav2Vec2ForVocalBurst
from avb_hf.training.exact import EffectiveBatch, RandomState, gather_rows, require_uncut_batches

CLIPS = 15  # 16 in one large batch less one: the last batch of an epoch is short
LABELS = 3
CLASS_WEIGHTS = [0.5, 1.0, 2.0]
CASES = {
    "ccc": {"loss": "ccc"},
    "mse": {"loss": "mse"},
    "cross_entropy": {"loss": "cross_entropy", "problem_type": "single_label_classification"},
    "weighted cross_entropy": {
        "loss": "cross_entropy",
        "problem_type": "single_label_classification",
        "class_weights": CLASS_WEIGHTS,
    },
}
# Sizes of the batches of each process: uneven, and one process without any label.
LAYOUTS = {
    "4 steps": [[4, 4, 4, 3]],
    "2 processes": [[8], [7]],
    "2 processes of 2 steps": [[4, 4], [4, 3]],
}
TWO_PROCESSES = ("2 processes", "2 processes of 2 steps")


def make_model(tiny_backbone, case, dtype, dropout=0.0):
    torch.manual_seed(3)
    backbone = tiny_backbone | {"hidden_dropout": dropout, "attention_dropout": 0.0, "activation_dropout": 0.0}
    config = VocalBurstConfig(
        encoder_config=backbone, num_labels=LABELS, rnn_hidden_size=8, pooling="mean", **CASES[case]
    )
    return Wav2Vec2ForVocalBurst(config).to(dtype).train()


def make_batch(case, dtype):
    torch.manual_seed(4)
    lengths = torch.randint(1_500, 4_000, (CLIPS,))
    mask = (torch.arange(4_000) < lengths[:, None]).long()
    values = torch.randn(CLIPS, 4_000, dtype=dtype) * mask
    if "cross_entropy" in case:
        labels = torch.randint(0, LABELS, (CLIPS,))
        labels[[1, *range(8, CLIPS)]] = -100
    else:
        labels = torch.rand(CLIPS, LABELS, dtype=dtype)
        labels[1, 2] = labels[8:, :] = torch.nan  # the second of two processes has no label
    return {"input_values": values, "attention_mask": mask, "labels": labels}


def scores(model, batch):
    return model(batch["input_values"], batch["attention_mask"]).logits


def cut(batch, sizes, start=0):
    parts = []
    for size in sizes:
        parts.append({name: value[start : start + size] for name, value in batch.items()})
        start += size
    return parts


def step(model, batches):
    """Return the loss and the gradients that one process has after an optimizer step's backward passes."""
    whole = EffectiveBatch(batches, model, partial(scores, model))
    total = 0.0
    for batch in batches:
        part = whole.part_of_loss(batch)
        part.backward()
        total += part.item()
    return total, [parameter.grad for parameter in model.parameters()]


def one_large_batch(tiny_backbone, case, dtype):
    model = make_model(tiny_backbone, case, dtype)
    batch = make_batch(case, dtype)
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), [parameter.grad for parameter in model.parameters()]


def largest(gradients):
    return max(gradient.abs().max().item() for gradient in gradients)


def assert_same(found, expected, dtype):
    (loss, gradients), (true_loss, true_gradients) = found, expected
    assert abs(loss - true_loss) < 1e-6
    difference = largest([a - b for a, b in zip(gradients, true_gradients, strict=True)])
    assert difference / largest(true_gradients) < {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_accumulation_is_one_large_batch(tiny_backbone, case, dtype):
    model = make_model(tiny_backbone, case, dtype)
    found = step(model, cut(make_batch(case, dtype), LAYOUTS["4 steps"][0]))
    assert_same(found, one_large_batch(tiny_backbone, case, dtype), dtype)


def test_the_mean_of_parts_is_another_loss(tiny_backbone):
    model = make_model(tiny_backbone, "ccc", torch.float64)
    batches = cut(make_batch("ccc", torch.float64) | {"labels": torch.rand(CLIPS, LABELS)}, [4, 4, 4, 3])
    parts = [model(**batch).loss.item() for batch in batches]
    whole = EffectiveBatch(batches, model, partial(scores, model))
    assert abs(sum(whole.part_of_loss(batch).item() for batch in batches) - sum(parts) / 4) > 1e-3


def test_dropout_is_the_same_in_both_passes(tiny_backbone):
    model = make_model(tiny_backbone, "ccc", torch.float64, dropout=0.3)
    seen = []

    def forward(batch):
        seen.append(scores(model, batch))
        return seen[-1]

    batches = cut(make_batch("ccc", torch.float64), [5, 5, 5])
    whole = EffectiveBatch(batches, model, forward)
    for batch in batches:
        whole.part_of_loss(batch)
    assert len(seen) == 6
    for first, second in zip(seen[:3], seen[3:], strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(seen[0], scores(model, batches[0]))


# Fields of a model, those of its backbone, and what of it makes a clip's scores depend on its batch.
GROUP_NORM = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
MIXES_CLIPS = {
    "nothing": ({"pooling": "max"}, {}, None),
    "a frame that is picked": ({"pooling": "last", "pooling_mask": False}, {}, None),
    "no group norm to mask": ({"masked_group_norm": False}, {}, None),
    "a masked group norm": ({}, GROUP_NORM, None),
    "padding": ({"pooling": "max", "pooling_mask": False}, {}, "pooling reads padded frames"),
    "batch norm": ({"output_norm": "batch"}, {}, "output_norm is a batch norm"),
    "group norm": ({"masked_group_norm": False}, GROUP_NORM, "group norm takes padding into its statistics"),
}


@pytest.mark.parametrize("case", MIXES_CLIPS)
def test_batches_are_cut_only_where_clips_do_not_depend_on_them(tiny_backbone, case):
    fields, of_backbone, cause = MIXES_CLIPS[case]
    config = VocalBurstConfig(encoder_config=tiny_backbone | of_backbone, num_labels=2, rnn_hidden_size=4, **fields)
    for mode in (True, False):
        model = Wav2Vec2ForVocalBurst(config).train(mode)
        require_uncut_batches(model, accumulation=1, processes=1)
        for accumulation, processes in ((2, 1), (1, 2)):
            if cause is None:
                require_uncut_batches(model, accumulation, processes)
            else:
                with pytest.raises(ValueError, match=f"got {processes} and {accumulation} .*{cause}"):
                    require_uncut_batches(model, accumulation, processes)
        assert model.training == mode


def test_a_batch_norm_that_is_frozen_mixes_no_clips(tiny_backbone):
    config = VocalBurstConfig(encoder_config=tiny_backbone, num_labels=2, rnn_hidden_size=4)
    model = Wav2Vec2ForVocalBurst(config)
    model.encoder.feature_projection.norm = torch.nn.BatchNorm1d(2)
    with pytest.raises(ValueError, match=r"encoder\.feature_projection\.norm is a batch norm"):
        require_uncut_batches(model, 2, 1)
    model.freeze_base_model()
    require_uncut_batches(model, 2, 1)


@pytest.mark.parametrize("freezer", ["freeze_feature_encoder", "freeze_base_model"])
def test_what_is_frozen_but_keeps_its_dropout_takes_whole_batches(tiny_backbone, freezer):
    config = VocalBurstConfig(encoder_config=tiny_backbone, num_labels=2, rnn_hidden_size=4)
    for keep_dropout in (True, False):
        model = Wav2Vec2ForVocalBurst(config)
        require_uncut_batches(model, 2, 2)
        getattr(model, freezer)(keep_dropout)
        require_uncut_batches(model, 1, 1)
        if not keep_dropout:
            require_uncut_batches(model, 2, 2)
            continue
        for accumulation, processes in ((2, 1), (1, 2)):
            with pytest.raises(ValueError, match=f"got {processes} and {accumulation} .*frozen_dropout"):
                require_uncut_batches(model, accumulation, processes)


def test_random_state_is_restored():
    before = RandomState.now()
    drawn = torch.rand(3)
    before.restore()
    assert torch.equal(torch.rand(3), drawn)


def test_rows_of_one_process_are_its_own():
    rows = torch.rand(3, 2, requires_grad=True)
    everyone, own = gather_rows(rows)
    assert torch.equal(everyone[own], rows)
    assert not everyone.requires_grad


def process(tiny_backbone, file):
    """Do one step in one of two processes, average gradients as DistributedDataParallel does, and save them."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    results = {}
    for name, case, dtype in product(TWO_PROCESSES, CASES, (torch.float64, torch.float32)):
        layout = LAYOUTS[name]
        batches = cut(make_batch(case, dtype), layout[rank], start=sum(map(sum, layout[:rank])))
        loss, gradients = step(make_model(tiny_backbone, case, dtype), batches)
        loss = torch.tensor(loss, dtype=torch.float64)
        for value in (loss, *gradients):
            dist.all_reduce(value)
            value /= len(layout)
        results[name, case, str(dtype)] = loss.item(), gradients
    if rank == 0:
        torch.save(results, file)
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_are_one_large_batch(tiny_backbone, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    done = subprocess.run(
        [*launch, json.dumps(tiny_backbone), tmp_path / "results.pt"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = torch.load(tmp_path / "results.pt")
    for case, dtype in product(CASES, (torch.float64, torch.float32)):
        expected = one_large_batch(tiny_backbone, case, dtype)
        for name in TWO_PROCESSES:
            assert_same(results[name, case, str(dtype)], expected, dtype)


if __name__ == "__main__":
    process(json.loads(sys.argv[1]), sys.argv[2])
