"""Stopping a run whose numbers are not finite any more, before its weights are saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.errors import UserError
from vae.models.precision import MAX_OVERFLOWS, OverflowStreak


class DivergenceCheck:
    """Checks of each step and of the weights; what they check is the same on all ranks.

    Args:
        lr: the learning rate, which the messages suggest to lower.
        variables: weights and the optimizer's slots.
    """

    def __init__(self, lr: float, variables: Sequence[tf.Variable]) -> None:
        self._lr = lr
        self._all_finite = all_finite(variables)
        self._overflows = OverflowStreak()
        self._last_loss: float | None = None

    def check_step(
        self,
        totals: NDArray[np.float32],
        scalars: Mapping[str, np.float32],
        global_step_before: int,
        users: int,
        place: str,
    ) -> None:
        """Ends the run after a step with a loss that is not finite, or after many overflows.

        Gradients that overflow now and then are the price of float16; when all of them do, nothing
        is learnt any more.

        Args:
            totals: (3,) the step's sums over users, the objective first.
            scalars: the step's scalars, with the loss scale if there is one.
            global_step_before: the global step as the step found it.
            users: of the global batch.
            place: the step and its epoch, for people.

        Raises:
            UserError: it has come to that.
        """
        self._overflows.add(global_step_before)
        if not np.isfinite(totals).all():
            raise self._not_finite(f"the loss of {place}")
        if self._overflows.in_a_row >= MAX_OVERFLOWS:
            raise self._not_finite(
                f"the gradients of {MAX_OVERFLOWS} steps in a row (the loss scale of --amp is "
                f"{scalars['loss_scale']:g}) before {place}"
            )
        self._last_loss = float(totals[0]) / users

    def check_weights(self, session: tf.Session, place: str) -> None:
        """Finds what a step with a finite loss has done to the weights.

        Raises:
            UserError: some number in them is not finite.
        """
        if not session.run(self._all_finite):
            raise self._not_finite(f"the model's weights or Adam's moments after {place}")

    def _not_finite(self, what: str) -> UserError:
        last = "none" if self._last_loss is None else f"{self._last_loss:.6g} nats/user"
        return UserError(
            f"Not finite: {what} (last finite loss: {last}); "
            "go on from an older checkpoint (--resume) or start over (--restart), with a smaller "
            f"--lr than {self._lr}.",
            exit_code=1,
        )


def all_finite(variables: Sequence[tf.Variable]) -> tf.Tensor:
    """Scalar bool: whether no number in these variables is infinite or NaN."""
    floating = [v for v in variables if v.dtype.base_dtype.is_floating]
    return tf.reduce_all([tf.reduce_all(tf.is_finite(v)) for v in floating])
