"""The state of a run beside its TensorFlow variables, as a checkpoint's ``state.json`` holds it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae.config import ACTIVATIONS, DECODERS, ENCODERS, PRIORS, Architecture
from vae.utils.json_types import from_json, shown

_LOSSES = 3
_MAX_COUNT = 2**63 - 1
"""TensorFlow counts steps in int64."""

_MAX_NDCG = 1 + 1e-9
"""NDCG is at most 1, up to rounding."""


_LAYERS = {
    "activation": ACTIVATIONS,
    "encoder": ENCODERS,
    "decoder": DECODERS,
    "prior": PRIORS,
}
_ADDED_TO_ARCHITECTURE = {"encoder": "tanh", "decoder": "deep", "prior": "normal"}
"""The model of checkpoints that were written before there were others."""


@dataclass(frozen=True)
class TrainState:
    """State of a run apart from the TensorFlow variables; the same on every rank.

    Attributes:
        architecture: fields of the model's ``Architecture``.
        dataset_fingerprint: fingerprint of the prepared data.
        config: flags of the run, as JSON values.
        epoch: completed epochs.
        batch: completed batches of the next epoch.
        losses: sums over the users of those batches: objective, negative log-likelihood and KL
            divergence, in nats.
        seconds: wall time of those batches.
        best_ndcg: best validation NDCG@100 so far; None before the first validation.
        best_step: step of that validation.
        validations_since_best: number of validations after it.
        step: completed steps of the whole run.
        validation_is_due: whether a signal interrupted the validation of this state.
        blend: hyperparameters that were chosen for a blend of these weights; None if none were.
        summary: statistics and metrics for the run's summary, as of the last validation.
    """

    architecture: dict[str, Any]
    dataset_fingerprint: str
    config: dict[str, Any]
    epoch: int = 0
    batch: int = 0
    losses: list[float] = field(default_factory=lambda: [0.0] * _LOSSES)
    seconds: float = 0.0
    best_ndcg: float | None = None
    best_step: int | None = None
    validations_since_best: int = 0
    step: int = 0
    validation_is_due: bool = False
    blend: dict[str, float] | None = None
    summary: dict[str, float] = field(default_factory=dict)

    @classmethod
    def new(
        cls, architecture: Architecture, dataset_fingerprint: str, config: dict[str, Any]
    ) -> TrainState:
        """Return the state of a new run."""
        return cls(dataclasses.asdict(architecture), dataset_fingerprint, config)

    @classmethod
    def from_json(cls, document: Any) -> TrainState:
        """Return the state that a JSON object holds.

        Raises:
            ValueError: names the value that is missing, unknown, of another type or impossible.
        """
        # Checkpoints of earlier versions have no blend and no summary.
        state = from_json(cls, {"blend": None, "summary": {}} | document)
        state.architecture.update(_ADDED_TO_ARCHITECTURE | state.architecture)
        from_json(Architecture, state.architecture)
        for problem in state._problems():
            raise ValueError(problem)
        return state

    def check_progress(self, users: int, steps_per_epoch: int) -> None:
        """Check that training on this number of users can have reached this state.

        Args:
            users: training users.
            steps_per_epoch: steps of the current epoch. Earlier epochs may have had other batch
                sizes, but no empty batch.

        Raises:
            ValueError: it cannot.
        """
        if self.batch >= steps_per_epoch:
            raise ValueError(f"batch is {self.batch} in an epoch of {steps_per_epoch}")
        if self.step > self.epoch * users + self.batch:
            raise ValueError(
                f"step is {self.step}, more than {self.epoch} epochs of {users} users have"
            )

    def after_step(self, losses: NDArray[np.float32], seconds: float) -> TrainState:
        """Return the state after one more batch.

        Args:
            losses: (3,) float32, what the batch adds to the sums.
            seconds: its wall time.
        """
        return dataclasses.replace(
            self,
            batch=self.batch + 1,
            step=self.step + 1,
            losses=[total + float(loss) for total, loss in zip(self.losses, losses, strict=True)],
            seconds=self.seconds + seconds,
        )

    def after_epoch(self) -> TrainState:
        """Return the state at the start of the next epoch."""
        return dataclasses.replace(
            self, epoch=self.epoch + 1, batch=0, losses=[0.0] * _LOSSES, seconds=0.0
        )

    def after_validation(self, ndcg: float) -> TrainState:
        """Return the state after a validation with this NDCG@100, NaN if no user has targets."""
        validated = dataclasses.replace(self, validation_is_due=False)
        # NaN is never the best.
        if ndcg > (-math.inf if self.best_ndcg is None else self.best_ndcg):
            return dataclasses.replace(
                validated, best_ndcg=ndcg, best_step=self.step, validations_since_best=0
            )
        return dataclasses.replace(
            validated, validations_since_best=self.validations_since_best + 1
        )

    def before_validation(self) -> TrainState:
        """Return the state of a run whose validation was interrupted."""
        return dataclasses.replace(self, validation_is_due=True)

    def without_best(self) -> TrainState:
        """Return the state of a run whose best checkpoint is missing."""
        return dataclasses.replace(self, best_ndcg=None, best_step=None, validations_since_best=0)

    def results(self) -> dict[str, float]:
        """Return what the run's summary holds of its training."""
        best = {} if self.best_ndcg is None else {"best_ndcg@100": self.best_ndcg}
        return self.summary | best

    def position(self) -> str:
        """Return the step and the epochs, human-readable."""
        epochs = f"{plural(self.epoch, 'epoch')} completed"
        batch = f", batch {self.batch} of the next" if self.batch else ""
        return f"step {self.step} ({epochs}{batch})"

    def _problems(self) -> Iterator[str]:
        """Yield a phrase for each value that no run can have."""
        for name in ("epoch", "batch", "validations_since_best", "step"):
            if not 0 <= getattr(self, name) <= _MAX_COUNT:
                yield f"{name} is {shown(getattr(self, name))}"
        for name in ("items", "hidden_dim", "latent_dim"):
            if not 1 <= self.architecture[name] <= _MAX_COUNT:
                yield f"{name} is {shown(self.architecture[name])}"
        for name, known in _LAYERS.items():
            if self.architecture[name] not in known:
                yield f"{name} is {shown(self.architecture[name])}"
        if self.seconds < 0:
            yield f"seconds is {self.seconds}"
        if len(self.losses) != _LOSSES:
            yield f"there are {len(self.losses)} losses instead of {_LOSSES}"
        if self.step < self.epoch + self.batch:
            yield f"step is {self.step} after {self.epoch} epochs and {self.batch} batches"
        if self.validation_is_due and self.batch:
            yield "a validation is due within an epoch"
        if self.validations_since_best > self.epoch:
            yield f"validations_since_best is {self.validations_since_best}, epoch {self.epoch}"
        if (self.best_ndcg is None) != (self.best_step is None):
            yield "best_ndcg and best_step are not both there"
        if self.best_ndcg is not None and not 0 <= self.best_ndcg <= _MAX_NDCG:
            yield f"best_ndcg is {shown(self.best_ndcg)}"
        if self.blend is not None and not _is_blend(self.blend):
            yield f"blend is {shown(self.blend)}"
        if self.best_step is not None and not 0 < self.best_step <= self.step:
            yield f"best_step is {shown(self.best_step)}, step {self.step}"


def _is_blend(blend: dict[str, float]) -> bool:
    """Return whether these are hyperparameters of a blend."""
    return (
        set(blend) == {"ease_lambda", "model_weight"}
        and blend["ease_lambda"] > 0
        and 0 <= blend["model_weight"] <= 1
    )


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 epoch`` and ``2 epochs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
