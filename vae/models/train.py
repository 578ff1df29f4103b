"""Training: the loop over epochs, with its validations, checkpoints and log lines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from tqdm import tqdm

from vae.config import Config
from vae.errors import UserError
from vae.load.batches import Batch, TrainingBatches, prefetch
from vae.load.dataset import Dataset
from vae.models import checkpoint
from vae.models.checkpoint_manager import CheckpointManager, Start, nothing_left
from vae.models.divergence import DivergenceCheck
from vae.models.evaluate import Evaluation, EvaluationInterrupted, evaluate, min_ranking_depth
from vae.models.inference_graph import build_inference_graph
from vae.models.precision import Precision, choose_precision
from vae.models.session import open_session
from vae.models.throughput import Throughput
from vae.models.timeline import run_traced
from vae.models.train_step import TrainingStep
from vae.models.trained_model import TrainedModel
from vae.models.vae import VAE, Architecture
from vae.models.xla import compiled
from vae.utils.distributed import Workers, raise_on_all
from vae.utils.run_log import RunLog
from vae.utils.signals import StopSignals, exit_code

Scalars = Mapping[str, np.float32]


class StopOrSave(NamedTuple):
    """What some worker has asked all of them to do after a step."""

    stop: bool
    save: bool


NEITHER = StopOrSave(stop=False, save=False)


def train(
    config: Config, dataset: Dataset, workers: Workers, log: RunLog, start: Start
) -> tuple[TrainedModel, dict[str, float]]:
    """Trains a model from where ``start`` says.

    Returns:
        The model as it was at the end, and the closing figures by the names that the log uses.

    Raises:
        UserError: the loss is not finite, a checkpoint cannot be read or written, or a signal
            stopped the run.
    """
    precision = choose_precision(config.amp)
    with (
        StopSignals() as signals,
        tf.Graph().as_default(),
        open_session(config, workers, precision) as session,
    ):
        return Trainer(config, dataset, workers, log, session, precision, start, signals).run()


class Trainer:
    """One training run: its graph, its session and how far it has come."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        workers: Workers,
        log: RunLog,
        session: tf.Session,
        precision: Precision,
        start: Start,
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
            config.batch_size_train,
            config.seed,
            config.dropout,
            workers.rank,
            workers.size,
        )
        items = len(dataset.item_ids)
        architecture = Architecture(items, config.hidden_dim, config.latent_dim, config.activation)
        with compiled(config.xla):
            self._vae = VAE(architecture, config.seed)
            self._step = TrainingStep(
                self._vae, config, workers, self._batches.max_shard_users, precision
            )
            self._ranking = build_inference_graph(
                self._vae, min_ranking_depth(items), max_users=config.batch_size_validation
            )
        self._finite = DivergenceCheck(config.lr, tf.global_variables())
        self._saver = tf.train.Saver(max_to_keep=None)
        self._folder = CheckpointManager(config.checkpoint_dir) if config.checkpoint_dir else None
        self._state = start.state
        self._save_interval = config.save_interval
        self._last_save = time.monotonic()
        self._throughput = Throughput(config.warm_up_epochs)
        self._validation: Evaluation | None = None
        self._steps = config.epochs * self._batches.steps_per_epoch
        # The first step also sets up memory and kernels: the second one is more typical.
        self._step_to_trace = min(start.state.step + 1, self._steps - 1)

    def run(self) -> tuple[TrainedModel, dict[str, float]]:
        """Trains until nothing is left to do, or a signal stops the run."""
        self._log.say(f"Precision of training: {self._step.precision.description}.")
        self._prepare()
        with self._log.progress(self._steps, self._state.step) as progress:
            while (over := nothing_left(self._config, self._state)) is None:
                asked = NEITHER if self._state.validation_is_due else self._train_epoch(progress)
                improved = self._validation_is_due() and self._validate()
                self._save_and_stop(asked, self._epoch_ends_with_save(improved))
        self._stop_if_signalled()
        self._log.say(f"Training finished: {over}.")
        weights = self._session.run({v.op.name: v for v in self._vae.variables})
        facts = {"trained": self._state.position()}
        model = TrainedModel(self._vae.architecture, weights, facts, self._state.config)
        return model, self._summary()

    def _prepare(self) -> None:
        """Initialises the variables, or restores them where a run left off.

        Rank 0 alone reads checkpoints, so that a folder on its own disk is enough.
        """
        self._session.run(tf.global_variables_initializer())
        raise_on_all(self._workers, self._prepare_on_rank_0)
        self._workers.broadcast_variables(self._session)

    def _prepare_on_rank_0(self) -> None:
        if self._folder is None or self._workers.rank != 0:
            return
        self._folder.prepare(sum(v.shape.num_elements() * 4 for v in tf.global_variables()))
        source = self._start.checkpoint
        if source is not None:
            checkpoint.restore(self._session, self._saver, source)
        in_folder = source is not None and source.parent.samefile(self._folder.path)
        replaced = self._folder.set_aside(after=self._state.step if in_folder else -1)
        if replaced is not None:
            self._log.say(f"Moved the checkpoints that this run replaces to {replaced}.")

    def _train_epoch(self, progress: tqdm[None]) -> StopOrSave:
        """Trains on every user that the epoch has left, and logs the epoch."""
        before = time.perf_counter()
        for batch in prefetch(self._batches.epoch(self._state.epoch, self._state.batch)):
            totals, scalars, asked = self._run_step(batch)
            self._state = self._state.after_step(totals, time.perf_counter() - before)
            progress.update()
            if self._state.batch < self._batches.steps_per_epoch:
                self._save_and_stop(asked)
            before = time.perf_counter()
        self._log_epoch(scalars)
        self._state = self._state.after_epoch()
        return asked

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
                "learning_rate": self._config.lr,
            }
            | dict(scalars),
        )

    def _run_step(self, batch: Batch) -> tuple[NDArray[np.float32], Scalars, StopOrSave]:
        """Runs and checks one step; returns what it adds to the sums, its scalars, the requests."""
        step = self._step
        fetches = [step.totals, step.scalars, step.requests, step.global_step_before, step.update]
        feed = step.feed(batch, self._signals.received is not None, self._time_is_up())
        if (
            self._config.trace
            and self._workers.rank == 0
            and self._state.step == self._step_to_trace
        ):
            path = self._config.trace_path("train")
            results = run_traced(self._session, fetches, feed, path)
            self._log.say(f"Timeline of one training step: {path}")
        else:
            results = self._session.run(fetches, feed)
        totals, scalars, (stop, save), global_step_before, _ = results
        place = f"step {self._state.step + 1}, epoch {self._state.epoch + 1}"
        self._finite.check_step(totals, scalars, int(global_step_before), batch.global_users, place)
        return totals, scalars, StopOrSave(bool(stop), bool(save))

    def _check_weights(self) -> None:
        epochs = self._state.epoch + (self._state.batch > 0)
        self._finite.check_weights(self._session, f"step {self._state.step}, epoch {epochs}")

    def _validation_is_due(self) -> bool:
        epoch = self._state.epoch
        due = self._state.validation_is_due
        return due or epoch == self._config.epochs or epoch % self._config.validation_step == 0

    def _validate(self) -> bool:
        """Evaluates on the validation users and logs it; returns whether it is the best so far."""
        self._check_weights()
        config = self._config
        try:
            result = evaluate(
                self._session,
                self._ranking,
                self._dataset.validation,
                self._workers,
                config.batch_size_validation,
                should_stop=lambda: self._signals.received is not None,
            )
        except EvaluationInterrupted:
            self._state = self._state.before_validation()
            self._save()
            self._stop_if_signalled()
            raise
        self._validation = result
        self._state = self._state.after_validation(result.metrics["ndcg@100"].mean)
        self._log.log(
            (self._state.epoch,),
            result.values() | {"valid_time": result.seconds, "valid_users": result.scored_users},
        )
        return self._state.best_step == self._state.step

    def _time_is_up(self) -> bool:
        """Whether ``--save_every`` asks for a checkpoint, by rank 0's clock."""
        passed = time.monotonic() - self._last_save
        return self._workers.rank == 0 and self._save_interval.minutes_are_over(passed)

    def _epoch_ends_with_save(self, improved: bool) -> bool:
        return (
            improved
            or nothing_left(self._config, self._state) is not None
            or self._save_interval.epochs_are_over(self._state.epoch)
        )

    def _save_and_stop(self, asked: StopOrSave, is_due: bool = False) -> None:
        """Saves where that is due or asked for, and stops where that is asked for."""
        if is_due or asked.save or asked.stop:
            self._save()
        if asked.stop:
            self._stop_if_signalled()

    def _save(self) -> None:
        """Writes a checkpoint, if there is a folder for them; rank 0 alone writes."""
        self._check_weights()
        raise_on_all(self._workers, self._save_on_rank_0)
        self._last_save = time.monotonic()

    def _save_on_rank_0(self) -> None:
        if self._folder and self._workers.rank == 0:
            newest = self._config.keep_checkpoints
            self._folder.save(self._session, self._saver, self._state, newest)

    def _stop_if_signalled(self) -> None:
        """Ends the run on all ranks, if a signal has reached one of them."""
        received = [
            s for s in self._workers.allgather_object(self._signals.received) if s is not None
        ]
        if received:
            folder = self._config.checkpoint_dir
            kept = f"the same command trains on from {folder}" if folder else "nothing is kept"
            raise UserError(
                f"Stopped by {received[0].name} at {self._state.position()}; {kept}.",
                exit_code(received[0]),
            )

    def _summary(self) -> dict[str, float]:
        """The run's closing figures."""
        summary = self._throughput.summary()
        if self._validation:
            summary["mean_inference_throughput"] = self._validation.throughput
            summary |= {f"final_{name}": v for name, v in self._validation.values().items()}
        if self._state.best_ndcg is not None:
            summary["best_ndcg@100"] = self._state.best_ndcg
        return summary
