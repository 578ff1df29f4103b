"""Where training starts from, and when it is finished."""

import dataclasses

import numpy as np
import pytest

from vae.cli import as_json
from vae.config import Checkpoints, Config
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.manager import CheckpointManager
from vae.models.checkpoints.resume import find_resume_point, flags_of_checkpoint, reason_finished

FLAGS = as_json(Config.of(train=True))
"""Of the run that resumes; the checkpoints hold one of them, as those of an earlier version."""


def resumed(folder, new, **options):
    new = dataclasses.replace(new, config=FLAGS)
    return find_resume_point(new, np.arange(9), folder.path, Checkpoints(**options), 400, 0)


def test_training_goes_on_from_the_latest_checkpoint_with_the_best_one_so_far(tmp_path, new, save):
    folder = CheckpointManager(tmp_path)
    best = {"best_ndcg": 0.25, "best_step": 3, "validations_since_best": 1}
    save(folder, 3, epoch=1, best_ndcg=0.25, best_step=3)
    state = save(folder, 7, epoch=2, batch=1, losses=[3.0, 2.0, 1.0], seconds=0.5, **best)
    found = resumed(folder, new)
    assert found.checkpoint == folder.at(7)
    assert found.state == dataclasses.replace(state, config=FLAGS)
    assert found.description == (
        f"Resuming {folder.at(7)} at step 7 (2 epochs completed, batch 1 of the next); "
        "--lr changed from 0.1 to 0.004."
    )
    folder.at(3).rename(tmp_path / "elsewhere")
    lost = {"best_ndcg": None, "best_step": None, "validations_since_best": 0}
    assert resumed(folder, new).state == dataclasses.replace(found.state, **lost)


def test_a_blend_is_chosen_again_after_more_training(tmp_path, new, save):
    folder = CheckpointManager(tmp_path)
    save(folder, 3, epoch=1, best_ndcg=0.25, best_step=3, blend={"model_weight": 0.5})
    save(folder, 7, epoch=2, best_ndcg=0.25, best_step=3)
    for takes_blend, expected in ((True, {"blend": "ease"}), (False, {})):
        flags = flags_of_checkpoint(tmp_path, Checkpoints(), takes_blend)
        assert {name: value for name, value in flags.items() if name == "blend"} == expected
        assert (flags["hidden_dim"], flags["kl_per_item"], flags["model"]) == (3, 0.0, "multvae")
    found = resumed(folder, new, resume=str(folder.at(3)))
    assert found.checkpoint == folder.at(3)
    assert found.state.blend is None
    assert checkpoint.read_state(folder.at(3)).blend == {"model_weight": 0.5}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"epoch": 59}, None),
        ({"epoch": 60}, "60 epochs completed"),
        ({"epoch": 60, "validation_is_due": True}, None),
        ({"epoch": 1, "validations_since_best": 2}, None),
        (
            {"epoch": 1, "validations_since_best": 3},
            "early stopping: no improvement in NDCG@100 for 3 validations",
        ),
    ],
)
def test_a_run_ends_after_its_epochs_or_validations_without_improvement(new, fields, reason):
    state = dataclasses.replace(new, **fields)
    assert reason_finished(state, epochs=60, early_stop=3) == reason
    assert reason_finished(state, epochs=61, early_stop=0) is None
