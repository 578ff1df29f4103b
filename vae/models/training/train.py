"""The training loop: epochs, validations, checkpoints and log lines."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from tqdm import tqdm

from vae.config import Architecture, Config
from vae.errors import UserError
from vae.load.batches import Batch, TrainingBatches
from vae.load.dataset import Dataset
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.manager import CheckpointManager
from vae.models.checkpoints.resume import ResumePoint, reason_finished
from vae.models.checkpoints.warm_start import read_warm_start
from vae.models.graph.inference_graph import build_inference_graph
from vae.models.graph.precision import Precision, choose_precision
from vae.models.graph.session import compiled, open_session, run_traced
from vae.models.graph.train_step import TrainingStep
from vae.models.graph.vae import VAE
from vae.models.inference.evaluate import EvaluationInterrupted, evaluate, min_ranking_depth
from vae.models.inference.trained_model import TrainedModel
from vae.models.training.divergence import DivergenceCheck
from vae.models.training.replicas import check_replicas
from vae.utils.distributed import Workers, raise_on_all
from vae.utils.run_log import RunLog
from vae.utils.signals import StopSignals, exit_code
from vae.utils.threads import prefetch

Scalars = Mapping[str, np.float32]


class StopOrSave(NamedTuple):
    """Requests of any worker to all workers, to be met after a step."""

    stop: bool
    save: bool


NEITHER = StopOrSave(stop=False, save=False)


def train(
    config: Config,
    dataset: Dataset,
    architecture: Architecture,
    workers: Workers,
    log: RunLog,
    start: ResumePoint,
) -> tuple[TrainedModel, dict[str, float]]:
    """Train a model, from scratch or from a checkpoint.

    Args:
        config: flags of the run.
        dataset: training and validation users.
        architecture: of the model.
        workers: all of them must call this together.
        log: log of the run.
        start: state to start from.

    Returns:
        The model at the end of training, and the statistics and metrics for the run's summary.

    Raises:
        UserError: training diverged, a checkpoint cannot be read or written, or a signal stopped
            the run.
    """
    precision = choose_precision(config.execution.amp)
    with (
        StopSignals() as signals,
        tf.Graph().as_default(),
        open_session(workers, precision, not config.execution.no_tf32) as session,
    ):
        trainer = Trainer(
            config, dataset, architecture, workers, log, session, precision, start, signals
        )
        return trainer.run()


class Trainer:
    """A training run: its graph, its session and its state.

    Args:
        config: flags of the run.
        dataset: training and validation users.
        architecture: of the model, which is built in the current graph.
        workers: all of them must build and run a trainer together.
        log: log of the run.
        session: session of the current graph.
        precision: of the training step.
        start: state to start from.
        signals: signals that request a stop.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        architecture: Architecture,
        workers: Workers,
        log: RunLog,
        session: tf.Session,
        precision: Precision,
        start: ResumePoint,
        signals: StopSignals,
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._workers = workers
        self._log = log
        self._session = session
        self._start = start
        self._signals = signals
        self._batches = TrainingBatches(
            dataset.train,
            config.training.batch_size_train,
            config.execution.seed,
            config.objective.dropout,
            workers.rank,
            workers.size,
        )
        with compiled(config.execution.xla):
            self._vae = VAE(architecture, config.execution.seed)
            self._step = TrainingStep(
                self._vae,
                config.objective,
                config.training,
                config.execution.seed,
                workers,
                self._batches.max_shard_users,
                precision,
            )
            self._inference = build_inference_graph(
                self._vae,
                min_ranking_depth(architecture.items),
                max_users=config.evaluation.batch_size_validation,
            )
        self._divergence = DivergenceCheck(config.training.lr, tf.global_variables())
        self._saver = tf.train.Saver(max_to_keep=None)
        self._folder = (
            CheckpointManager(config.files.checkpoint_dir) if config.files.checkpoint_dir else None
        )
        self._state = start.state
        self._save_interval = config.checkpoints.save_interval
        self._last_save = time.monotonic()
        self._throughput = Throughput(config.training.warm_up_epochs)
        self._total_steps = config.training.epochs * self._batches.steps_per_epoch
        # The first step also allocates memory and selects kernels: the second is more typical.
        self._step_to_trace = min(start.state.step + 1, self._total_steps - 1)

    def run(self) -> tuple[TrainedModel, dict[str, float]]:
        """Train to the last epoch, to an early stop, or until a signal stops the run."""
        self._log.say(f"Precision of training: {self._step.precision.description}.")
        self._prepare()
        with self._log.progress(
            "Training", self._total_steps, "steps", self._state.step
        ) as progress:
            while (finished := self._reason_finished()) is None:
                requests = NEITHER if self._state.validation_is_due else self._train_epoch(progress)
                self._check_replicas_if_due()
                improved = self._validation_is_due() and self._validate()
                self._save_and_stop(requests, self._epoch_ends_with_save(improved))
        self._stop_if_signalled()
        self._workers.report_position(None)
        self._log.say(f"Training finished: {finished}.")
        weights = self._session.run({v.op.name: v for v in self._vae.variables})
        metadata = {"trained": self._state.position()}
        model = TrainedModel(self._vae.architecture, weights, metadata, self._state.config)
        return model, self._state.results()

    def _reason_finished(self) -> str | None:
        flags = self._config.training
        return reason_finished(self._state, flags.epochs, flags.early_stop)

    def _prepare(self) -> None:
        """Initialise the variables, or restore those of the checkpoint to resume from.

        Only rank 0 reads checkpoints, so a folder on its own disk is enough.
        """
        self._session.run(tf.global_variables_initializer())
        raise_on_all(self._workers, self._prepare_on_rank_0)
        self._workers.broadcast_variables(self._session)

    def _prepare_on_rank_0(self) -> None:
        if self._workers.rank != 0:
            return
        config = self._config
        if self._start.checkpoint is None and config.checkpoints.warm_start is not None:
            self._log.say(
                read_warm_start(
                    config.checkpoints.warm_start,
                    self._vae.architecture,
                    self._dataset.item_ids,
                    lambda warm_start: warm_start.load(self._session, tf.global_variables()),
                )
            )
        if self._folder is None:
            return
        self._folder.prepare(sum(v.shape.num_elements() * 4 for v in tf.global_variables()))
        source = self._start.checkpoint
        if source is not None:
            checkpoint.restore(self._session, self._saver, source)
        in_folder = source is not None and source.parent.samefile(self._folder.path)
        replaced = self._folder.set_aside(after=self._state.step if in_folder else -1)
        if replaced is not None:
            self._log.say(f"Checkpoints of the previous run moved to {replaced}.")

    def _train_epoch(self, progress: tqdm[None]) -> StopOrSave:
        """Train on the remaining batches of an epoch and log the epoch."""
        before = time.perf_counter()
        for batch in prefetch(self._batches.epoch(self._state.epoch, self._state.batch)):
            totals, scalars, requests = self._run_step(batch)
            self._state = self._state.after_step(totals, time.perf_counter() - before)
            progress.update()
            if self._state.batch < self._batches.steps_per_epoch:
                self._save_and_stop(requests)
            before = time.perf_counter()
        self._session.run(self._step.end_of_epoch)
        self._log_epoch(scalars)
        self._state = self._state.after_epoch()
        return requests

    def _log_epoch(self, scalars: Scalars) -> None:
        users = self._dataset.train.shape[0]
        seconds = self._state.seconds
        self._throughput.add(users, seconds)
        loss, likelihood, divergence = (total / users for total in self._state.losses)
        self._log.log(
            (self._state.epoch + 1,),
            {
                "train_epoch_time": seconds,
                "train_throughput": users / seconds,
                "loss": loss,
                "neg_log_likelihood": likelihood,
                "kl_divergence": divergence,
                "learning_rate": self._config.training.lr,
            }
            | dict(scalars),
        )

    def _run_step(self, batch: Batch) -> tuple[NDArray[np.float32], Scalars, StopOrSave]:
        """Run and check one step; return its totals, its scalars and the workers' requests."""
        self._workers.report_position(f"step {self._state.step + 1}")
        step = self._step
        fetches = [step.totals, step.scalars, step.requests, step.global_step_before, step.update]
        feed = step.feed(batch, self._signals.received is not None, self._time_is_up())
        if (
            self._config.execution.trace
            and self._workers.rank == 0
            and self._state.step == self._step_to_trace
        ):
            path = self._config.trace_paths["train"]
            results = run_traced(self._session, fetches, feed, path)
            self._log.say(f"Timeline of one training step: {path}")
        else:
            results = self._session.run(fetches, feed)
        totals, scalars, (stop, save), global_step_before, _ = results
        self._divergence.check_step(
            totals,
            scalars,
            int(global_step_before),
            batch.global_users,
            f"step {self._state.step + 1}, epoch {self._state.epoch + 1}",
        )
        return totals, scalars, StopOrSave(bool(stop), bool(save))

    def _check_weights(self) -> None:
        epochs = self._state.epoch + (self._state.batch > 0)
        self._divergence.check_weights(self._session, f"step {self._state.step}, epoch {epochs}")

    def _check_replicas_if_due(self) -> None:
        """Compare the replicas every ``--check_replicas`` epochs."""
        epochs = self._config.checkpoints.check_replicas
        if epochs and self._state.epoch % epochs == 0:
            self._check_replicas()

    def _check_replicas(self) -> None:
        if self._workers.size > 1:
            check_replicas(self._workers, self._session, self._state.position())

    def _validation_is_due(self) -> bool:
        epoch = self._state.epoch
        due = self._state.validation_is_due
        return (
            due
            or epoch == self._config.training.epochs
            or epoch % self._config.training.validation_step == 0
        )

    def _validate(self) -> bool:
        """Evaluate on the validation users; return whether NDCG@100 is the best so far."""
        self._check_weights()
        config = self._config
        try:
            result = evaluate(
                self._session,
                self._inference,
                self._dataset.validation,
                self._workers,
                config.evaluation.batch_size_validation,
                should_stop=lambda: self._signals.received is not None,
            )
        except EvaluationInterrupted:
            self._state = self._state.before_validation()
            self._save()
            self._stop_if_signalled()
            raise
        self._state = self._state.after_validation(result.metrics["ndcg@100"].mean)
        summary = self._throughput.summary() | {"mean_inference_throughput": result.throughput}
        summary |= {f"final_{n}": v for n, v in result.values().items() if math.isfinite(v)}
        self._state = dataclasses.replace(self._state, summary=self._state.summary | summary)
        improved = self._state.best_step == self._state.step
        self._log.log(
            (self._state.epoch,),
            result.values() | {"valid_time": result.seconds, "valid_users": result.scored_users},
            "best so far" if improved else "",
        )
        return improved

    def _time_is_up(self) -> bool:
        """Return whether a checkpoint is due by ``--save_every``, which rank 0 decides."""
        elapsed = time.monotonic() - self._last_save
        return self._workers.rank == 0 and self._save_interval.minutes_are_over(elapsed)

    def _epoch_ends_with_save(self, improved: bool) -> bool:
        return (
            improved
            or self._reason_finished() is not None
            or self._save_interval.epochs_are_over(self._state.epoch)
        )

    def _save_and_stop(self, requests: StopOrSave, is_due: bool = False) -> None:
        """Save if that is due or requested, and stop if that is requested."""
        if is_due or requests.save or requests.stop:
            self._save()
        if requests.stop:
            self._stop_if_signalled()

    def _save(self) -> None:
        """Save a checkpoint, if there is a folder for them; only rank 0 writes."""
        self._workers.report_position(f"the save after step {self._state.step}")
        self._check_weights()
        if self._config.checkpoints.check_replicas is None:
            self._check_replicas()
        raise_on_all(self._workers, self._save_on_rank_0)
        self._last_save = time.monotonic()

    def _save_on_rank_0(self) -> None:
        if self._folder and self._workers.rank == 0:
            keep = self._config.checkpoints.keep_checkpoints
            item_ids = self._dataset.item_ids
            self._folder.save(self._session, self._saver, self._state, item_ids, keep)

    def _stop_if_signalled(self) -> None:
        """Raise on all ranks if any of them has received a signal."""
        received = [
            s for s in self._workers.allgather_object(self._signals.received) if s is not None
        ]
        if received:
            folder = self._config.files.checkpoint_dir
            fix = (
                f"rerun the same command to resume from {folder}" if folder else "nothing is saved"
            )
            raise UserError(
                f"Stopped by {received[0].name} at {self._state.position()}; {fix}.",
                exit_code(received[0]),
            )


class Throughput:
    """Mean training throughput, without the first epochs.

    Args:
        warm_up_epochs: number of epochs to leave out.
    """

    def __init__(self, warm_up_epochs: int) -> None:
        self._epochs_to_skip = warm_up_epochs
        self._users = 0
        self._seconds = 0.0

    def add(self, users: int, seconds: float) -> None:
        """Add an epoch."""
        if self._epochs_to_skip:
            self._epochs_to_skip -= 1
        else:
            self._users += users
            self._seconds += seconds

    def summary(self) -> dict[str, float]:
        """Return the mean in users per second by its log key; empty without a measured epoch."""
        return {"mean_training_throughput": self._users / self._seconds} if self._users else {}
