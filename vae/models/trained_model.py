"""Testing and inference on a trained model: the inference graph alone, its weights read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.config import Config
from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.models import checkpoint
from vae.models.checkpoint_manager import CheckpointManager
from vae.models.inference_graph import InferenceGraph, build_inference_graph
from vae.models.precision import FLOAT32, Precision
from vae.models.session import open_session
from vae.models.train_state import TrainState
from vae.models.vae import VAE, Architecture
from vae.models.xla import compiled
from vae.utils.distributed import Workers, on_rank_0
from vae.utils.run_log import RunLog

Weights = Mapping[str, NDArray[np.float32]]

_AT_ONCE = 2
"""Slices of users: while one picks its best items, the other one's product fills the cores."""


@dataclass(frozen=True)
class TrainedModel:
    """A model that need not be trained any more.

    Attributes:
        architecture: what gives the weights their shapes.
        weights: the layers' variables by name; None for random ones.
        metadata: where they come from, human-readable.
        flags: those of the run that trained it.
    """

    architecture: Architecture
    weights: Weights | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)

    def load_into(self, session: tf.Session, vae: VAE) -> None:
        """Gives the variables of a graph their values, in the variables' own types."""
        if self.weights is None:
            session.run([variable.initializer for variable in vae.variables])
            return
        for variable in vae.variables:
            value = self.weights[variable.op.name].astype(variable.dtype.as_numpy_dtype)
            variable.load(value, session)


def load_model(
    config: Config, dataset: Dataset, architecture: Architecture, workers: Workers, log: RunLog
) -> TrainedModel:
    """The model of the checkpoint that ``--checkpoint`` means; rank 0 reads it for all.

    Raises:
        UserError: there is none, it is damaged, or it does not fit the flags or the data.
    """

    def read() -> TrainedModel:
        path, state = _find_model(config, dataset, architecture)
        log.say(f"Loaded checkpoint {path} ({state.position()}).")
        metadata = {"checkpoint": f"{path} ({state.position()})"}
        if state.best_ndcg is not None and state.best_step == state.step:
            metadata["validation ndcg@100"] = f"{state.best_ndcg:.5f}"
        return TrainedModel(architecture, checkpoint.read_weights(path), metadata, state.config)

    return on_rank_0(workers, read)


def _find_model(
    config: Config, dataset: Dataset, architecture: Architecture
) -> tuple[Path, TrainState]:
    """The checkpoint that ``--checkpoint`` means, verified, and its state."""
    if config.checkpoint_dir is None:
        raise UserError("No trained model: give --checkpoint_dir or add --train.")
    folder = CheckpointManager(config.checkpoint_dir)
    path = folder.best() if config.checkpoint == "best" else folder.latest()
    if path is None:
        raise UserError(
            f"--checkpoint_dir {config.checkpoint_dir}: holds no checkpoint; "
            "train first, or name the folder that was trained into."
        )
    state = checkpoint.verify(path)
    checkpoint.check_match(path, state, architecture, dataset.fingerprint)
    return path, state


@contextmanager
def open_inference_session(
    config: Config,
    workers: Workers,
    model: TrainedModel,
    k: int,
    max_users: int,
    precision: Precision = FLOAT32,
    seen_apart: bool = False,
) -> Iterator[tuple[tf.Session, InferenceGraph]]:
    """A session with the inference graph of a model."""
    with (
        tf.Graph().as_default(),
        open_session(config, workers, precision, _AT_ONCE) as session,
    ):
        with compiled(config.xla):
            vae = VAE(model.architecture, config.seed, precision.dtype)
            ranking = build_inference_graph(vae, k, max_users, seen_apart, _AT_ONCE)
        model.load_into(session, vae)
        yield session, ranking
