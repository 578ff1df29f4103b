"""A trained model for test and inference: its weights, read once, and sessions that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.config import Architecture, Execution
from vae.errors import UserError
from vae.load.dataset import Dataset
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.manager import CheckpointManager
from vae.models.checkpoints.train_state import TrainState
from vae.models.graph.inference_graph import (
    ITEM_WEIGHTS,
    Blend,
    InferenceGraph,
    build_inference_graph,
)
from vae.models.graph.precision import FLOAT32, Precision
from vae.models.graph.session import compiled, open_session
from vae.models.graph.vae import VAE
from vae.utils.distributed import Workers, on_rank_0
from vae.utils.run_log import RunLog

Weights = Mapping[str, NDArray[np.float32]]

_PARALLEL_CHUNKS = 2
"""While one chunk of users selects its best items, the other one's matmul uses the cores."""


@dataclass(frozen=True)
class TrainedModel:
    """A model for test and inference.

    Attributes:
        architecture: shapes of the weights, and the activation.
        weights: variables of the layers by name; None for random ones.
        metadata: origin of the weights, human-readable.
        flags: flags of the run that trained it.
        checkpoint: folder that it was loaded from.
        blend: hyperparameters of a blend chosen for it: ``ease_lambda``, ``ease_dropout``
            and ``model_weight``.
    """

    architecture: Architecture
    weights: Weights | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    blend: Mapping[str, float] | None = None

    @property
    def is_blended(self) -> bool:
        """Whether the weights are those of a blend with EASE."""
        return self.weights is not None and ITEM_WEIGHTS in self.weights

    def unblended(self) -> TrainedModel:
        """Return the model without its blend."""
        assert self.weights is not None
        alone = {name: value for name, value in self.weights.items() if name[:6] != "blend/"}
        return replace(self, weights=alone, blend=None)

    def new_blend(self) -> Blend | None:
        """Add the variables of the blend, if there is one, to the current graph."""
        return Blend(self.architecture.items) if self.is_blended else None

    def load_into(self, session: tf.Session) -> None:
        """Set the variables of the current graph, in the variables' own types."""
        if self.weights is None:
            session.run(tf.global_variables_initializer())
            return
        for variable in tf.global_variables():
            value = self.weights[variable.op.name].astype(variable.dtype.as_numpy_dtype)
            variable.load(value, session)


def load_model(
    checkpoint_dir: Path,
    which: str,
    architecture: Architecture,
    dataset: Dataset,
    workers: Workers,
    log: RunLog,
) -> TrainedModel:
    """Load a checkpoint; rank 0 reads it for all ranks.

    Args:
        checkpoint_dir: folder of the checkpoints, or a single one.
        which: ``"best"`` or ``"latest"``, as for ``--checkpoint``.
        architecture: of the model.
        dataset: prepared data that it must have been trained on.
        workers: all of them must call this together.
        log: log of the run.

    Raises:
        UserError: there is none, it is damaged, or of another model or other data.
    """
    folder = CheckpointManager(checkpoint_dir)

    def read_once() -> tuple[Path, TrainState, Weights]:
        path = folder.latest() if which == "latest" else folder.best()
        if path is None:
            raise UserError(
                f"--checkpoint_dir {checkpoint_dir}: holds no checkpoint; train first, or name the "
                "--checkpoint_dir of an earlier run."
            )
        state = checkpoint.verify(path)
        checkpoint.check_match(path, state, architecture, dataset.fingerprint)
        return path, state, checkpoint.read_weights(path)

    def read() -> TrainedModel:
        path, state, weights = folder.read_again_if_pruned(read_once)
        log.say(f"Loaded checkpoint {path}: {state.position()}.")
        metadata = {"checkpoint": f"{path}, {state.position()}"}
        if state.best_ndcg is not None and state.best_step == state.step:
            metadata["validation ndcg@100"] = f"{state.best_ndcg:.5f}"
        return TrainedModel(architecture, weights, metadata, state.config, path, state.blend)

    return on_rank_0(workers, read)


@contextmanager
def open_inference_session(
    model: TrainedModel,
    execution: Execution,
    workers: Workers,
    k: int,
    max_users: int,
    precision: Precision = FLOAT32,
    **options: Any,
) -> Iterator[tuple[tf.Session, InferenceGraph]]:
    """Yield a session that holds a model, and its inference graph.

    Args:
        model: the model.
        execution: how the session computes, and the seed of random weights.
        workers: as for ``open_session``.
        k: number of recommendations per user, at most the number of items.
        max_users: maximum number of users per batch.
        precision: of the graph.
        **options: for ``build_inference_graph``.
    """
    with (
        tf.Graph().as_default(),
        open_session(workers, precision, not execution.no_tf32, _PARALLEL_CHUNKS) as session,
    ):
        with compiled(execution.xla):
            vae = VAE(model.architecture, execution.seed, precision.dtype)
            blend = model.new_blend()
            graph = build_inference_graph(
                vae, k, max_users, blend, parallel_chunks=_PARALLEL_CHUNKS, **options
            )
        model.load_into(session)
        yield session, graph
