"""The state of a run beside its TensorFlow variables, as a checkpoint's ``state.json`` holds it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae.config import Architecture


@dataclass(frozen=True)
class TrainState:
    """State of a run apart from the TensorFlow variables; the same on every rank.

    Attributes:
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

    architecture: Architecture
    dataset_fingerprint: str
    config: dict[str, Any]
    epoch: int = 0
    batch: int = 0
    losses: list[float] = field(default_factory=lambda: [0.0] * 3)
    seconds: float = 0.0
    best_ndcg: float | None = None
    best_step: int | None = None
    validations_since_best: int = 0
    step: int = 0
    validation_is_due: bool = False
    blend: dict[str, float] | None = None
    summary: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TrainState:
        """Return the state whose ``dataclasses.asdict`` was written as this JSON object."""
        return cls(**document | {"architecture": Architecture(**document["architecture"])})

    def after_step(self, losses: NDArray[np.float32], seconds: float) -> TrainState:
        """Return the state after one more batch, with its (3,) float32 losses and wall time."""
        return replace(
            self,
            batch=self.batch + 1,
            step=self.step + 1,
            losses=[total + float(loss) for total, loss in zip(self.losses, losses, strict=True)],
            seconds=self.seconds + seconds,
        )

    def after_epoch(self) -> TrainState:
        """Return the state at the start of the next epoch."""
        return replace(self, epoch=self.epoch + 1, batch=0, losses=[0.0] * 3, seconds=0.0)

    def after_validation(self, ndcg: float) -> TrainState:
        """Return the state after a validation with this NDCG@100, NaN if no user has targets."""
        validated = replace(self, validation_is_due=False)
        # NaN is never the best.
        if ndcg > (-math.inf if self.best_ndcg is None else self.best_ndcg):
            return replace(validated, best_ndcg=ndcg, best_step=self.step, validations_since_best=0)
        return replace(validated, validations_since_best=self.validations_since_best + 1)

    def results(self) -> dict[str, float]:
        """Return what the run's summary holds of its training."""
        best = {} if self.best_ndcg is None else {"best_ndcg@100": self.best_ndcg}
        return self.summary | best

    def differences(self, architecture: Architecture, dataset_fingerprint: str) -> list[str]:
        """Return a phrase for each dimension or layer that differs, and for other data."""
        data = "the dataset fingerprint"
        before = asdict(self.architecture) | {data: self.dataset_fingerprint[:12]}
        now = asdict(architecture) | {data: dataset_fingerprint[:12]}
        return [
            f"{name} is {value} in the checkpoint, {now[name]} now"
            for name, value in before.items()
            if value != now[name]
        ]

    def position(self) -> str:
        """Return the step and the epochs, human-readable."""
        epochs = f"{plural(self.epoch, 'epoch')} completed"
        batch = f", batch {self.batch} of the next" if self.batch else ""
        return f"step {self.step} ({epochs}{batch})"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 epoch`` and ``2 epochs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
