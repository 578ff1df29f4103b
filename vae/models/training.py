"""Training: the loop over epochs, with its validations, checkpoints and log lines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from vae.config import Config
from vae.errors import UserError
from vae.flags import as_json
from vae.load import Batch, Dataset, TrainingBatches, prefetch
from vae.models import checkpoint
from vae.models.checkpoint import CheckpointFolder, RunState
from vae.models.evaluation import Evaluation, evaluate, metric_depth
from vae.models.ranking import build_ranking
from vae.models.session import check_gpu_limit, open_session
from vae.models.timeline import run_traced
from vae.models.training_step import TrainingStep
from vae.models.vae import VAE, Architecture
from vae.models.xla import compiled
from vae.utils.logging import RunLog
from vae.utils.workers import Workers, together

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class TrainedModel:
    """What a training run leaves behind.

    Attributes:
        weights: the model's variables by name, as they were at the end.
        summary: the run's closing figures, by the names that the log uses.
    """

    weights: Weights
    summary: dict[str, float]


def train(config: Config, dataset: Dataset, workers: Workers, log: RunLog) -> TrainedModel:
    """Trains a model, going on with the run in ``config.checkpoint_dir`` if there is one.

    Raises:
        UserError: the checkpoint does not fit the flags or the data, or the loss is not finite.
    """
    with tf.Graph().as_default(), open_session(config, workers) as session:
        return Trainer(config, dataset, workers, log, session).run()


class Trainer:
    """One training run: its graph, its session and how far it has come."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        workers: Workers,
        log: RunLog,
        session: tf.Session,
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._workers = workers
        self._log = log
        self._session = session
        self._batches = TrainingBatches(
            dataset.train,
            config.batch_size_train,
            config.seed,
            config.dropout,
            workers.rank,
            workers.size,
        )
        items_per_user = dataset.train.nnz / dataset.train.shape[0]
        check_gpu_limit(
            self._batches.largest_share * items_per_user * (1 - config.dropout), config.hidden_dim
        )
        items = len(dataset.item_ids)
        architecture = Architecture(items, config.hidden_dim, config.latent_dim, config.activation)
        with compiled(config.xla):
            self._vae = VAE(architecture, config.seed)
            self._step = TrainingStep(self._vae, config, workers, self._batches.largest_share)
            self._ranking = build_ranking(
                self._vae, metric_depth(items), max_users=config.batch_size_validation
            )
        self._saver = tf.train.Saver(max_to_keep=None)
        self._folder = CheckpointFolder(config.checkpoint_dir) if config.checkpoint_dir else None
        self._state = RunState.new(architecture, dataset.digest, as_json(config))
        self._throughput = Throughput(config.warm_up_epochs)
        self._validation: Evaluation | None = None
        self._steps_run = 0

    def run(self) -> TrainedModel:
        """Trains to the last epoch."""
        self._log.say(f"Precision of training: {self._step.precision.description}.")
        self._start()
        while self._state.epoch < self._config.epochs:
            self._train_epoch()
            epoch = self._state.epoch
            if epoch == self._config.epochs or epoch % self._config.validation_step == 0:
                self._validate()
                self._save()
        weights = self._session.run({v.op.name: v for v in self._vae.variables})
        return TrainedModel(weights, self._summary())

    def _start(self) -> None:
        """Initialises the variables, or restores them where a run left off.

        Rank 0 alone reads checkpoints, so that a folder on its own disk is enough.
        """
        if self._folder is None:
            self._log.say("No --checkpoint_dir is given: the trained model will not be kept.")
        self._session.run(tf.global_variables_initializer())
        restored = together(self._workers, self._restore_on_rank_0)
        self._state = self._workers.gather(restored)[0]
        self._workers.broadcast_variables(self._session)

    def _restore_on_rank_0(self) -> RunState:
        latest = self._folder.latest() if self._folder and self._workers.rank == 0 else None
        if latest is None:
            return self._state
        state = checkpoint.read_state(latest)
        checkpoint.check_match(latest, state, self._vae.architecture, self._dataset.digest)
        checkpoint.restore(self._session, self._saver, latest)
        self._log.say(f"Resuming {latest} after epoch {state.epoch}.")
        return state

    def _train_epoch(self) -> None:
        """Trains on every user once and logs the epoch."""
        start = time.perf_counter()
        totals = np.zeros(3)
        for batch in prefetch(self._batches.epoch(self._state.epoch)):
            step_totals, scalars = self._run_step(batch)
            self._check_finite(step_totals, batch)
            totals += step_totals
        seconds = time.perf_counter() - start
        users = self._dataset.train.shape[0]
        self._state = replace(
            self._state,
            epoch=self._state.epoch + 1,
            step=self._state.step + self._batches.steps_per_epoch,
        )
        self._throughput.add(users, seconds)
        loss, likelihood, divergence = (totals / users).tolist()
        self._log.log(
            (self._state.epoch,),
            {
                "train_epoch_time": seconds,
                "train_throughput": users / seconds,
                "loss": loss,
                "neg_log_likelihood": likelihood,
                "kl_divergence": divergence,
            }
            | scalars,
        )

    def _run_step(self, batch: Batch) -> tuple[NDArray[np.float32], dict[str, np.float32]]:
        """Runs one step; returns what it adds to the epoch's totals, and its scalars."""
        fetches = [self._step.totals, self._step.scalars, self._step.update]
        feed = self._step.feed(batch)
        # The first step also sets up memory and kernels: the second one is more typical.
        typical = min(1, self._config.epochs * self._batches.steps_per_epoch - 1)
        if self._config.trace and self._workers.rank == 0 and self._steps_run == typical:
            path = self._config.trace_path("train")
            totals, scalars, _ = run_traced(self._session, fetches, feed, path)
            self._log.say(f"Timeline of one training step: {path}")
        else:
            totals, scalars, _ = self._session.run(fetches, feed)
        self._steps_run += 1
        return totals, scalars

    def _check_finite(self, totals: NDArray[np.float32], batch: Batch) -> None:
        if not np.isfinite(totals).all():
            raise UserError(
                f"The loss is not finite at step {batch.step} (epoch {self._state.epoch + 1}); "
                f"try a smaller --lr than {self._config.lr}.",
                exit_code=1,
            )

    def _validate(self) -> None:
        """Evaluates on the validation users and logs the metrics."""
        config = self._config
        result = evaluate(
            self._session,
            self._ranking,
            self._dataset.validation,
            self._workers,
            config.batch_size_validation,
        )
        self._validation = result
        ndcg = result.metrics["ndcg@100"].mean
        if self._state.best_ndcg is None or ndcg > self._state.best_ndcg:
            self._state = replace(self._state, best_ndcg=ndcg, best_step=self._state.step)
        self._log.log(
            (self._state.epoch,),
            result.figures() | {"valid_time": result.seconds, "valid_users": result.scored_users},
        )

    def _save(self) -> None:
        """Writes a checkpoint, if there is a folder for them; rank 0 alone writes."""
        together(self._workers, self._save_on_rank_0)

    def _save_on_rank_0(self) -> None:
        if self._folder and self._workers.rank == 0:
            self._folder.save(self._session, self._saver, self._state)

    def _summary(self) -> dict[str, float]:
        """The run's closing figures."""
        summary = self._throughput.summary()
        if self._validation:
            summary["mean_inference_throughput"] = self._validation.throughput
            summary |= {f"final_{name}": v for name, v in self._validation.figures().items()}
        if self._state.best_ndcg is not None:
            summary["best_ndcg@100"] = self._state.best_ndcg
        return summary


class Throughput:
    """Mean training throughput without the first epochs, which warm up."""

    def __init__(self, warm_up_epochs: int) -> None:
        self._left_to_skip = warm_up_epochs
        self._users = 0
        self._seconds = 0.0

    def add(self, users: int, seconds: float) -> None:
        """Count an epoch."""
        if self._left_to_skip:
            self._left_to_skip -= 1
        else:
            self._users += users
            self._seconds += seconds

    def summary(self) -> dict[str, float]:
        """The mean in users a second; empty when no epoch was left to measure."""
        return {"mean_training_throughput": self._users / self._seconds} if self._users else {}
