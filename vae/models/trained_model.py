"""Testing and inference on a trained model: the inference graph alone, its weights read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.config import Config
from vae.errors import UserError
from vae.load import Dataset
from vae.models import checkpoint
from vae.models.checkpoint_manager import CheckpointFolder
from vae.models.evaluate import Evaluation, evaluate, metric_depth
from vae.models.inference_graph import Ranking, build_ranking
from vae.models.precision import FLOAT32, Precision
from vae.models.run_state import RunState
from vae.models.session import open_session
from vae.models.vae import VAE, Architecture
from vae.models.xla import compiled
from vae.utils.distributed import Workers, together
from vae.utils.run_log import RunLog

Weights = Mapping[str, NDArray[np.float32]]

_AT_ONCE = 2
"""Slices of users: while one picks its best items, the other one's product fills the cores."""


@dataclass(frozen=True)
class Model:
    """A model that need not be trained any more.

    Attributes:
        architecture: what gives the weights their shapes.
        weights: the layers' variables by name; None for random ones.
        facts: where they come from, for people.
        flags: those of the run that trained it.
    """

    architecture: Architecture
    weights: Weights | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)

    def load_into(self, session: tf.Session, vae: VAE) -> None:
        """Gives the variables of a graph their values, in the variables' own types."""
        if self.weights is None:
            session.run([variable.initializer for variable in vae.variables])
            return
        for variable in vae.variables:
            value = self.weights[variable.op.name].astype(variable.dtype.as_numpy_dtype)
            variable.load(value, session)


def restore_model(
    config: Config, dataset: Dataset, architecture: Architecture, workers: Workers, log: RunLog
) -> Model:
    """The model of the checkpoint that ``--checkpoint`` means; rank 0 reads it for all.

    Raises:
        UserError: there is none, it is damaged, or it does not fit the flags or the data.
    """

    def read() -> Model | None:
        if workers.rank != 0:
            return None
        path, state = _find_model(config, dataset, architecture)
        log.say(f"Weights: {path} ({state.position()}).")
        facts = {"checkpoint": f"{path} ({state.position()})"}
        if state.best_ndcg is not None and state.best_step == state.step:
            facts["validation ndcg@100"] = f"{state.best_ndcg:.5f}"
        return Model(architecture, checkpoint.read_weights(path), facts, state.config)

    return cast(Model, workers.gather(together(workers, read))[0])


def _find_model(
    config: Config, dataset: Dataset, architecture: Architecture
) -> tuple[Path, RunState]:
    """The checkpoint that ``--checkpoint`` means, verified, and its state."""
    if config.checkpoint_dir is None:
        raise UserError("No trained model: give --checkpoint_dir or add --train.")
    folder = CheckpointFolder(config.checkpoint_dir)
    path = folder.best() if config.checkpoint == "best" else folder.latest()
    if path is None:
        raise UserError(
            f"--checkpoint_dir {config.checkpoint_dir}: holds no checkpoint; "
            "train first, or name the folder that was trained into."
        )
    state = checkpoint.verify(path)
    checkpoint.check_match(path, state, architecture, dataset.digest)
    return path, state


@contextmanager
def open_model(
    config: Config,
    workers: Workers,
    model: Model,
    k: int,
    max_users: int,
    precision: Precision = FLOAT32,
    seen_apart: bool = False,
) -> Iterator[tuple[tf.Session, Ranking]]:
    """A session with the inference graph of a model."""
    with (
        tf.Graph().as_default(),
        open_session(config, workers, precision, _AT_ONCE) as session,
    ):
        with compiled(config.xla):
            vae = VAE(model.architecture, config.seed, precision.dtype)
            ranking = build_ranking(vae, k, max_users, seen_apart, _AT_ONCE)
        model.load_into(session, vae)
        yield session, ranking


def test(config: Config, dataset: Dataset, workers: Workers, model: Model) -> Evaluation:
    """Evaluates the model on the test users; every worker returns the whole result."""
    depth = metric_depth(model.architecture.items)
    batch = config.batch_size_validation
    with open_model(config, workers, model, depth, batch) as (session, ranking):
        return evaluate(session, ranking, dataset.test, workers, batch)
