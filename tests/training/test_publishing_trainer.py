"""Final pushes of several processes end together, and a trainer that is not told where to push says so."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from avb_hf.training.hub import PushError
from avb_hf.training.publishing_trainer import PublishingTrainer
from avb_hf.training.run_card import RunCard

TOLD = "the model was not pushed: the disk is full"


class PushOnly(PublishingTrainer):
    """What of a trainer is needed to push."""

    def __init__(self, publisher=None, repo_id="tester/owls", push_to_hub=True, folder="run"):
        self.publisher = publisher
        self.card = None if repo_id is None else RunCard(None, {}, repo_id, None)
        self.args = SimpleNamespace(push_to_hub=push_to_hub, output_dir=str(folder))

    def is_world_process_zero(self):
        """Whether this is the first process."""
        return True


def fail():
    raise PushError(TOLD)


def test_a_push_that_fails_is_told_as_what_it_is():
    with pytest.raises(PushError, match=TOLD):
        PushOnly(SimpleNamespace(push_result=fail)).push_to_hub()


@pytest.mark.parametrize("deed", ["push_to_hub", "create_model_card"])
def test_what_is_not_told_where_to_push_says_so(deed, tmp_path):
    with pytest.raises(ValueError, match=r"push_to_hub=True needs `publish\(.*says where to push"):
        getattr(PushOnly(repo_id=None, folder=tmp_path), deed)()
    getattr(PushOnly(repo_id=None, push_to_hub=False, folder=tmp_path), deed)()
    assert list(tmp_path.iterdir()) == []


def be_one_of_two(folder):
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    trainer = PushOnly(SimpleNamespace(push_result=fail) if rank == 0 else None)
    try:
        trainer.push_to_hub()
        told = None
    except OSError as error:
        told = str(error)
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(told, file)
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_push_that_fails_is_told_on_every_process(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    done = subprocess.run([*launch, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [TOLD, TOLD]


if __name__ == "__main__":
    be_one_of_two(sys.argv[1])
