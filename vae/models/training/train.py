"""The training loop: epochs, validations, checkpoints and log lines."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from tqdm import tqdm

from vae.config import Architecture, Checkpoints, Execution, Objective, Training
from vae.errors import UserError
from vae.load.batches import Batch, TrainingBatches
from vae.load.dataset import Dataset
from vae.metrics.aggregate import means_and_errors
from vae.metrics.ranking import MAX_CUTOFF, SELECTION_METRIC
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.item_blocks import collect_blocks, distribute_blocks, whole_shape
from vae.models.checkpoints.manager import CheckpointManager
from vae.models.checkpoints.resume import ResumePoint, reason_finished
from vae.models.checkpoints.warm_start import read_warm_start
from vae.models.graph.inference_graph import build_inference_graph
from vae.models.graph.item_shard import ItemShard
from vae.models.graph.precision import Precision, choose_precision
from vae.models.graph.session import compiled, open_session, run_traced
from vae.models.graph.train_step import TrainingStep
from vae.models.graph.vae import VAE
from vae.models.inference.evaluate import EvaluationInterrupted, evaluate
from vae.models.inference.trained_model import TrainedModel
from vae.models.training.divergence import DivergenceCheck
from vae.models.training.replicas import check_replicas
from vae.utils.console import wrapped
from vae.utils.distributed import Workers, on_rank_0, raise_on_all
from vae.utils.run_log import RunLog
from vae.utils.signals import StopSignals, exit_code
from vae.utils.threads import prefetch


class StopOrSave(NamedTuple):
    """Requests of any worker to all workers, to be met after a step."""

    stop: bool = False
    save: bool = False


@dataclass
class Trainer:
    """A training run, from scratch or from a checkpoint; all workers call :meth:`run` together.

    Attributes:
        checkpoint_dir: folder for checkpoints; None to save nothing.
        trace: file for the timeline of one step; None to write none.
    """

    dataset: Dataset
    start: ResumePoint
    architecture: Architecture
    objective: Objective
    training: Training
    execution: Execution
    batch_size_validation: int
    checkpoints: Checkpoints
    checkpoint_dir: Path | None
    trace: Path | None
    workers: Workers
    log: RunLog

    def run(self) -> tuple[TrainedModel, dict[str, float]]:
        """Train to the last epoch, to an early stop, or until a signal stops the run.

        Returns:
            The model at the end of training, and the statistics and metrics for the run's summary.

        Raises:
            UserError: training diverged, a checkpoint cannot be read or written, or a signal
                stopped the run.
        """
        precision = choose_precision(self.execution.amp)
        with (
            StopSignals() as self._signals,
            tf.Graph().as_default(),
            open_session(self.workers, precision, not self.execution.no_tf32) as self._session,
        ):
            self._build(precision)
            self.log.say(f"Precision of training: {precision.description}.")
            self._initialise()
            finished = self._train()
            self._stop_if_signalled()
            self.workers.report_position(None)
            self.log.say(f"Training finished: {finished}.")
            weights = None  # of divided items, the whole model is in the checkpoints alone
            if not self._shard.is_divided:
                weights = self._session.run({v.op.name: v for v in self._vae.variables})
        metadata = {"trained": self._state.position()}
        model = TrainedModel(self.architecture, weights, metadata, self._state.config)
        return model, self._state.results()

    def _build(self, precision: Precision) -> None:
        """Build the graphs of training and of validation, which share the variables."""
        training, seed = self.training, self.execution.seed
        divided = self.workers if self.execution.divides_items else None
        self._shard = ItemShard(self.architecture.padded_items, divided)
        # Those that share the users of a batch.
        self._sharing = self.workers.with_all_users() if self._shard.is_divided else self.workers
        self._batches = TrainingBatches(
            self.dataset.train,
            training.batch_size_train,
            seed,
            self.objective.dropout,
            self._sharing.rank,
            self._sharing.size,
        )
        with compiled(self.execution.xla):
            self._vae = VAE(self.architecture, seed, shard=self._shard)
            shard_users = self._batches.max_shard_users
            self._step = TrainingStep(
                self._vae, self.objective, training, seed, self._sharing, shard_users, precision
            )
            k = min(MAX_CUTOFF, self.architecture.items)
            self._inference = build_inference_graph(self._vae, k, self.batch_size_validation)
        variables = tf.global_variables()
        self._replicated = [v for v in variables if self._shard.axis(v.op.name) is None]
        self._divergence = DivergenceCheck(training.lr, variables, self.workers)
        self._saver = tf.train.Saver(self._replicated, max_to_keep=None)
        self._last_save = time.monotonic()
        self._folder: CheckpointManager | None = None
        if self.checkpoint_dir is not None:
            self._folder = CheckpointManager(self.checkpoint_dir)
        self._state = self.start.state
        self._epoch_seconds: list[float] = []
        self._total_steps = training.epochs * self._batches.steps_per_epoch

    def _initialise(self) -> None:
        """Initialise the variables, or restore those of the checkpoint to resume from.

        Only rank 0 reads checkpoints, so a folder on its own disk is enough.
        """
        self._session.run(tf.global_variables_initializer())
        on_rank_0(self.workers, self._initialise_on_rank_0)
        self.workers.broadcast_variables(self._session, self._replicated)
        if self.start.checkpoint is not None:
            read = partial(checkpoint.read_part, self.start.checkpoint)
            distribute_blocks(self._shard, self._session, read)

    def _initialise_on_rank_0(self) -> None:
        source, warm_start = self.start.checkpoint, self.checkpoints.warm_start
        if source is None and warm_start is not None:
            taken_over = read_warm_start(
                warm_start,
                self.architecture,
                self.dataset.item_ids,
                lambda found: found.load(self._session, tf.global_variables(), self.dataset),
            )
            self.log.say(wrapped(taken_over))
        if self._folder is None:
            return
        shapes = [whole_shape(self._shard, variable) for variable in tf.global_variables()]
        self._folder.prepare(sum(4 * math.prod(shape) for shape in shapes))
        if source is not None:
            checkpoint.restore(self._session, self._saver, source)
        replaced = self._folder.set_aside(after=self.start.last_step_in(self._folder.path))
        if replaced is not None:
            self.log.say(f"Checkpoints of the previous run moved to {replaced}.")

    def _train(self) -> str:
        """Alternate epochs, validations and checkpoints; return why training is finished."""
        with self.log.progress("Training", self._total_steps, "steps", self._state.step) as bar:
            while (finished := self._reason_finished()) is None:
                requests = StopOrSave()
                if not self._state.validation_is_due:
                    requests = self._train_epoch(bar)
                every = self.checkpoints.check_replicas
                if every and self._state.epoch % every == 0:
                    self._check_replicas()
                improved = self._validation_is_due() and self._validate()
                ends = self._reason_finished() is not None
                is_due = self.checkpoints.save_interval.epochs_are_over(self._state.epoch)
                self._save_and_stop(requests, improved or ends or is_due)
        return finished

    def _reason_finished(self) -> str | None:
        return reason_finished(self._state, self.training.epochs, self.training.early_stop)

    def _train_epoch(self, bar: tqdm[None]) -> StopOrSave:
        """Train on the remaining batches of an epoch and log the epoch."""
        before = time.perf_counter()
        batches = prefetch(self._batches.epoch(self._state.epoch, self._state.batch))
        with closing(batches):
            for batch in batches:
                totals, scalars, requests = self._run_step(batch)
                self._state = self._state.after_step(totals, time.perf_counter() - before)
                bar.update()
                if self._state.batch < self._batches.steps_per_epoch:
                    self._save_and_stop(requests)
                before = time.perf_counter()
        self._session.run(self._step.end_of_epoch)
        self._log_epoch(scalars)
        self._state = self._state.after_epoch()
        return requests

    def _run_step(
        self, batch: Batch
    ) -> tuple[NDArray[np.float32], Mapping[str, np.float32], StopOrSave]:
        """Run and check one step; return its totals, its scalars and the workers' requests."""
        step, number = self._step, self._state.step
        self.workers.report_position(f"step {number + 1}")
        fetches = [step.totals, step.scalars, step.requests, step.global_step_before, step.update]
        feed = step.feed(batch, self._signals.received is not None, self._save_interval_elapsed())
        # The first step also allocates memory and selects kernels: the second is more typical.
        is_typical = number == min(self.start.state.step + 1, self._total_steps - 1)
        if self.trace is not None and is_typical and self.workers.rank == 0:
            results = run_traced(self._session, fetches, feed, self.trace)
            self.log.say(f"Timeline of one training step: {self.trace}")
        else:
            results = self._session.run(fetches, feed)
        totals, scalars, (stop, save), global_step_before, _ = results
        self._divergence.check_step(
            totals,
            scalars,
            int(global_step_before),
            batch.global_users,
            f"step {number + 1}, epoch {self._state.epoch + 1}",
        )
        return totals, scalars, StopOrSave(bool(stop), bool(save))

    def _log_epoch(self, scalars: Mapping[str, np.float32]) -> None:
        users, seconds = self.dataset.train.shape[0], self._state.seconds
        self._epoch_seconds.append(seconds)
        loss, likelihood, divergence = (total / users for total in self._state.losses)
        self.log.log(
            (self._state.epoch + 1,),
            {
                "train_epoch_time": seconds,
                "train_throughput": users / seconds,
                "loss": loss,
                "neg_log_likelihood": likelihood,
                "kl_divergence": divergence,
                "learning_rate": self.training.lr,
            }
            | dict(scalars),
        )

    def _validation_is_due(self) -> bool:
        state, training = self._state, self.training
        regular = state.epoch % training.validation_step == 0
        return state.validation_is_due or regular or state.epoch == training.epochs

    def _validate(self) -> bool:
        """Evaluate on the validation users; return whether NDCG@100 is the best so far."""
        self._divergence.check_weights(self._session, self._state)
        try:
            result = evaluate(
                self._session,
                self._inference,
                self.dataset.validation,
                self._sharing,
                self.batch_size_validation,
                should_stop=self._should_stop,
            )
        except EvaluationInterrupted:
            self._state = replace(self._state, validation_is_due=True)
            self._save_and_stop(StopOrSave(stop=True))
            raise
        metrics, selection = means_and_errors(result.metrics), result.metrics[SELECTION_METRIC]
        throughput = result.users / result.seconds
        summary = self._mean_throughput() | {"mean_inference_throughput": throughput}
        summary |= {f"final_{n}": v for n, v in metrics.items() if math.isfinite(v)}
        state = self._state.after_validation(selection.mean)
        self._state = replace(state, summary=state.summary | summary)
        improved = state.best_step == state.step
        self.log.log(
            (state.epoch,),
            metrics | {"valid_time": result.seconds, "valid_users": selection.users},
            "best so far" if improved else "",
        )
        return improved

    def _should_stop(self) -> bool:
        """Return whether this worker, or any of those that divide the items, received a signal."""
        received = self._signals.received is not None
        return any(self._shard.workers.allgather_object(received))

    def _mean_throughput(self) -> dict[str, float]:
        """Return the mean without the first epochs by its log key; empty before there is one."""
        seconds = self._epoch_seconds[self.training.warm_up_epochs :]
        users = len(seconds) * self.dataset.train.shape[0]
        return {"mean_training_throughput": users / sum(seconds)} if seconds else {}

    def _save_interval_elapsed(self) -> bool:
        """Return whether a checkpoint is due by ``--save_every``, which rank 0 decides."""
        elapsed = time.monotonic() - self._last_save
        return self.workers.rank == 0 and self.checkpoints.save_interval.minutes_are_over(elapsed)

    def _save_and_stop(self, requests: StopOrSave, is_due: bool = False) -> None:
        """Save if that is due or requested, and stop if that is requested."""
        if is_due or requests.save or requests.stop:
            self._save()
        if requests.stop:
            self._stop_if_signalled()

    def _save(self) -> None:
        """Save a checkpoint, if there is a folder for them."""
        self.workers.report_position(f"the save after step {self._state.step}")
        self._divergence.check_weights(self._session, self._state)
        if self.checkpoints.check_replicas is None:
            self._check_replicas()
        raise_on_all(self.workers, self._write)
        self._last_save = time.monotonic()

    def _write(self) -> None:
        """Write a checkpoint on rank 0, to which the others send their items, whatever fails."""
        if self._folder is None:
            return
        blocks = collect_blocks(self._shard, self._session) if self._shard.is_divided else None
        try:
            if self.workers.rank == 0:
                state, item_ids = self._state, self.dataset.item_ids
                write = partial(
                    checkpoint.write, self._session, self._saver, state, item_ids, blocks
                )
                self._folder.save(state, self.checkpoints.keep_checkpoints, write)
        finally:
            for _ in blocks or ():
                pass

    def _check_replicas(self) -> None:
        check_replicas(self.workers, self._session, self._replicated, self._state.position())

    def _stop_if_signalled(self) -> None:
        """Raise on all ranks if any of them has received a signal."""
        signals = self.workers.allgather_object(self._signals.received)
        received = next((signal for signal in signals if signal is not None), None)
        if received is None:
            return
        fix = "nothing is saved"
        if self.checkpoint_dir is not None:
            fix = f"rerun the same command to resume from {self.checkpoint_dir}"
        raise UserError(
            f"Stopped by {received.name} at {self._state.position()}; {fix}.", exit_code(received)
        )
