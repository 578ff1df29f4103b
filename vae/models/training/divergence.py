"""Detection of diverged training, before its weights are saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.errors import UserError
from vae.models.checkpoints.train_state import TrainState
from vae.models.graph.precision import MAX_OVERFLOWS
from vae.utils.distributed import Workers


class DivergenceCheck:
    """Checks of each step and of the weights, with the same result on all ranks.

    In float16 gradients overflow now and then; if they do in many consecutive steps, the optimizer
    skips them all and the model does not learn any more.

    Args:
        lr: learning rate; the messages suggest a lower one.
        variables: weights and slots of the optimizer.
        workers: all of them check the weights together, since their items may differ.
    """

    def __init__(self, lr: float, variables: Sequence[tf.Variable], workers: Workers) -> None:
        self._lr, self._workers = lr, workers
        floating = [v for v in variables if v.dtype.base_dtype.is_floating]
        self._all_finite = tf.reduce_all([tf.reduce_all(tf.is_finite(v)) for v in floating])
        self._overflows = 0  # consecutive steps that the optimizer skipped
        self._global_step_before: int | None = None
        self._last_loss: float | None = None

    def check_step(
        self,
        totals: NDArray[np.float32],
        scalars: Mapping[str, np.float32],
        global_step_before: int,
        users: int,
        position: str,
    ) -> None:
        """Check the loss of a step, and that the optimizer does not skip all steps.

        The (3,) ``totals`` are sums over the ``users`` of the global batch, the objective first.

        Raises:
            UserError: training diverged.
        """
        # A skipped step leaves the global step unchanged, which shows at the next one.
        skipped = global_step_before == self._global_step_before
        self._overflows = self._overflows + 1 if skipped else 0
        self._global_step_before = global_step_before
        if not np.isfinite(totals).all():
            raise self._diverged(f"the loss of {position} is not finite")
        if self._overflows >= MAX_OVERFLOWS:
            raise self._diverged(
                f"non-finite gradients in {MAX_OVERFLOWS} consecutive steps before {position} (the "
                f"loss scale of --amp is {scalars['loss_scale']:g})"
            )
        self._last_loss = float(totals[0]) / users

    def check_weights(self, session: tf.Session, state: TrainState) -> None:
        """Check the weights and slots, which a step with a finite loss may have changed."""
        if not all(self._workers.allgather_object(bool(session.run(self._all_finite)))):
            position = f"step {state.step}, epoch {state.epoch + (state.batch > 0)}"
            raise self._diverged(f"weights or Adam's moments are not finite after {position}")

    def _diverged(self, symptom: str) -> UserError:
        last = "none" if self._last_loss is None else f"{self._last_loss:.6g} nats/user"
        return UserError(
            f"Training diverged: {symptom}; last finite loss: {last}; resume from an older "
            f"checkpoint (--resume) or start over (--restart) with a lower --lr than {self._lr}.",
            exit_code=1,
        )
