"""The state of a run."""

import dataclasses
import json
import math

import numpy as np

from vae.models.checkpoints.train_state import TrainState


def test_a_state_counts_steps_epochs_and_validations(new):
    state = new.after_step(np.float32([3, 2, 1]), 0.5).after_step(np.float32([1, 1, 1]), 0.25)
    assert (state.step, state.epoch, state.batch) == (2, 0, 2)
    assert (state.losses, state.seconds) == ([4.0, 3.0, 2.0], 0.75)
    assert state.position() == "step 2 (0 epochs completed, batch 2 of the next)"
    state = state.after_epoch()
    assert (state.step, state.epoch, state.batch, state.seconds) == (2, 1, 0, 0)
    assert state.losses == new.losses
    state = state.after_validation(0.3).after_validation(0.3).after_validation(0.2)
    assert (state.best_ndcg, state.best_step, state.validations_since_best) == (0.3, 2, 2)
    assert state.after_validation(0.4).validations_since_best == 0
    assert state.after_validation(math.nan).best_ndcg == 0.3
    assert new.after_validation(math.nan).best_step is None
    assert TrainState.from_json(json.loads(json.dumps(dataclasses.asdict(state)))) == state
