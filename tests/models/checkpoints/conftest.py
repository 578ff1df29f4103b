"""A small model and its state, and a way to save them."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from vae.config import Architecture
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.train_state import TrainState
from vae.models.graph.vae import VAE


@pytest.fixture
def new():
    """The state of a new run."""
    return TrainState(Architecture(items=9, hidden_dim=3, latent_dim=2), "digest", {"lr": 0.1})


@pytest.fixture
def model(new):
    """A session with the model, and its saver."""
    with tf.Graph().as_default(), tf.Session() as session:
        VAE(new.architecture, seed=0)
        session.run(tf.global_variables_initializer())
        yield session, tf.train.Saver(max_to_keep=None)


@pytest.fixture
def save(model, new):
    """Saves the model's checkpoints of these steps, whose state has these fields as well."""

    def save(folder, *steps, keep=2, **fields):
        for step in steps:
            state = dataclasses.replace(new, step=step, **fields)
            write = partial(checkpoint.write, *model, state, np.arange(9), None)
            folder.save(state, keep, write)
        return state

    return save
