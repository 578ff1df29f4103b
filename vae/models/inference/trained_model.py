"""A trained model for test and inference: its weights, read once, and sessions that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

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
from vae.models.graph.session import compiled, new_session, report_session_errors
from vae.models.graph.vae import VAE
from vae.utils.distributed import Workers, on_rank_0
from vae.utils.run_log import RunLog

Weights = Mapping[str, NDArray[Any]]

FEW_USERS = 512
"""Users up to which a session is one for few: it keeps no loop and no fused operations."""

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

    def new_blend(self, max_users: int = 0) -> Blend | None:
        """Add the variables of the blend, if there is one, to the current graph; see ``Blend``."""
        weights = (self.weights or {}).get(ITEM_WEIGHTS)
        if weights is None:
            return None
        return Blend(self.architecture.items, weights.shape[1], max_users)

    def load_into(self, session: tf.Session) -> None:
        """Set the variables of the current graph, in the variables' own types."""
        if self.weights is None:
            session.run(tf.global_variables_initializer())
            return
        for variable in tf.global_variables():
            dtype = variable.dtype.as_numpy_dtype
            variable.load(self.weights[variable.op.name].astype(dtype, copy=False), session)


def load_model(
    checkpoint_dir: Path,
    which: str,
    architecture: Architecture,
    dataset: Dataset,
    workers: Workers,
    log: RunLog,
) -> TrainedModel:
    """Load the ``"best"`` or ``"latest"`` checkpoint of a folder, or that of a single one.

    Rank 0 reads it for all ranks.

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
        checkpoint.check_match(path, state, architecture, dataset.fingerprint, dataset.grew_from)
        return path, state, checkpoint.read_weights(path)

    def read() -> TrainedModel:
        path, state, weights = folder.read_again_if_pruned(read_once)
        log.say(f"Loaded checkpoint {path}: {state.position()}.")
        metadata = {"checkpoint": f"{path}, {state.position()}"}
        if state.best_ndcg is not None and state.best_step == state.step:
            metadata["validation ndcg@100"] = f"{state.best_ndcg:.5f}"
        return TrainedModel(architecture, weights, metadata, state.config, path, state.blend)

    return on_rank_0(workers, read)


class InferenceSession:
    """A session that holds a model, and the inference graphs that it was asked for.

    Threads may share it. A graph is built when it is first asked for; all of them share the
    weights. Of ``max_users``, the users of a batch, up to ``FEW_USERS`` are computed at once, and
    without what pays for many alone.
    """

    def __init__(
        self,
        model: TrainedModel,
        execution: Execution,
        workers: Workers,
        max_users: int,
        precision: Precision = FLOAT32,
    ) -> None:
        self.max_users, self._execution = max_users, execution
        self._is_for_few = max_users <= FEW_USERS
        self._chunks = 1 if self._is_for_few else _PARALLEL_CHUNKS
        self._graphs: dict[frozenset[tuple[str, Any]], InferenceGraph] = {}
        self._lock = Lock()
        with tf.Graph().as_default():
            self.session = new_session(
                workers, precision, not execution.no_tf32, self._chunks, not self._is_for_few
            )
            with compiled(execution.xla):
                self._vae = VAE(model.architecture, execution.seed, precision.dtype)
                self._blend = model.new_blend(max_users)
            model.load_into(self.session)

    def graph(self, **options: Any) -> InferenceGraph:
        """Return an inference graph with these ``options`` of ``build_inference_graph``."""
        key = frozenset(options.items())
        with self._lock:
            if key not in self._graphs:
                with self.session.graph.as_default(), compiled(self._execution.xla):
                    self._graphs[key] = build_inference_graph(
                        self._vae,
                        max_users=self.max_users,
                        blend=self._blend,
                        parallel_chunks=self._chunks,
                        **options,
                    )
            return self._graphs[key]

    def close(self) -> None:
        """Free the memory of the session."""
        self.session.close()


@contextmanager
def open_inference_session(
    model: TrainedModel,
    execution: Execution,
    workers: Workers,
    k: int,
    max_users: int,
    precision: Precision = FLOAT32,
) -> Iterator[tuple[tf.Session, InferenceGraph]]:
    """Yield a session that holds a model, and an inference graph, and close it."""
    inference = InferenceSession(model, execution, workers, max_users, precision)
    with inference.session as session, report_session_errors():
        yield session, inference.graph(k=k)
