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

from vae.config import Architecture, Config, Execution
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
        blend: hyperparameters of a blend that were chosen for it, see ``blend.choose_blend``.
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
    config: Config, dataset: Dataset, architecture: Architecture, workers: Workers, log: RunLog
) -> TrainedModel:
    """Load the checkpoint that ``--checkpoint`` selects; rank 0 reads it for all ranks.

    Raises:
        UserError: there is none, it is damaged, or of another model or other data.
    """

    def read() -> TrainedModel:
        if config.files.checkpoint_dir is None:
            raise UserError("no trained model; pass --checkpoint_dir or --train.")
        folder = CheckpointManager(config.files.checkpoint_dir)

        def read_once() -> tuple[Path, TrainState, Weights]:
            latest = config.checkpoints.checkpoint == "latest"
            path = folder.latest() if latest else folder.best()
            if path is None:
                raise _no_checkpoint(folder.path)
            state = checkpoint.verify(path)
            checkpoint.check_match(path, state, architecture, dataset.fingerprint)
            return path, state, checkpoint.read_weights(path)

        path, state, weights = folder.read_again_if_pruned(read_once)
        log.say(f"Loaded checkpoint {path}: {state.position()}.")
        metadata = {"checkpoint": f"{path}, {state.position()}"}
        if state.best_ndcg is not None and state.best_step == state.step:
            metadata["validation ndcg@100"] = f"{state.best_ndcg:.5f}"
        return TrainedModel(architecture, weights, metadata, state.config, path, state.blend)

    return on_rank_0(workers, read)


def _no_checkpoint(checkpoint_dir: Path) -> UserError:
    return UserError(
        f"--checkpoint_dir {checkpoint_dir}: holds no checkpoint; train first, or name the "
        "--checkpoint_dir of an earlier run."
    )


@contextmanager
def open_inference_session(
    execution: Execution,
    workers: Workers,
    model: TrainedModel,
    k: int,
    max_users: int,
    precision: Precision = FLOAT32,
    excluded: NDArray[np.bool_] | None = None,
    separate_listed: bool = False,
    only_listed: bool = False,
    log_probabilities: bool = False,
) -> Iterator[tuple[tf.Session, InferenceGraph]]:
    """Yield a session that holds a model, and its inference graph.

    Args:
        execution: how the session computes, and the seed of random weights.
        workers: as for ``open_session``.
        model: the model.
        k: number of recommendations per user, at most the number of items.
        max_users: maximum number of users per batch.
        precision: of the graph.
        excluded: as for ``build_inference_graph``.
        separate_listed: the same.
        only_listed: the same.
        log_probabilities: the same.
    """
    with (
        tf.Graph().as_default(),
        open_session(workers, precision, not execution.no_tf32, _PARALLEL_CHUNKS) as session,
    ):
        with compiled(execution.xla):
            vae = VAE(model.architecture, execution.seed, precision.dtype)
            graph = build_inference_graph(
                vae,
                k,
                max_users,
                model.new_blend(),
                excluded,
                separate_listed,
                only_listed,
                log_probabilities,
                _PARALLEL_CHUNKS,
            )
        model.load_into(session)
        yield session, graph
