"""``--check``: what a run would do, in a few lines of 100 columns, paths aside."""

from __future__ import annotations

from collections.abc import Iterator

from vae.baselines import ease
from vae.config import Architecture, Config
from vae.load.batches import TrainingBatches
from vae.load.dataset import Dataset
from vae.models.checkpoints.manager import CheckpointManager
from vae.models.checkpoints.resume import ResumePoint
from vae.models.checkpoints.train_state import plural
from vae.models.training.memory import checkpoint_bytes, needed_bytes, parameters
from vae.utils.distributed import Workers
from vae.utils.host import available_bytes

_MB, _GB = 1e6, 1e9


def plan_lines(
    config: Config,
    architecture: Architecture,
    dataset: Dataset,
    workers: Workers,
    start: ResumePoint | None,
) -> Iterator[str]:
    """Yield the plan of a run; ``start`` is None without ``--train``."""
    validation, test = (len(part.user_ids) for part in dataset.held_out)
    yield (
        f"Held out: {validation:,} validation users and {test:,} test users; "
        f"{dataset.train.nnz:,} interactions to train on."
    )
    weights = sum(parameters(architecture).values())
    kind = f"{architecture.encoder} encoder, {architecture.decoder} decoder"
    yield f"Model: {weights:,} parameters; {kind}, {architecture.prior} prior."
    trains = start is not None and start.finished is None
    shards = workers.size if config.execution.divides_items else 1
    needed = needed_bytes(architecture, trains, config.needs_checkpoint, False, shards)
    available = available_bytes(workers.local_size)
    yield (
        f"Memory: the models take at least {workers.local_size * needed / _GB:.2f} GB of the "
        f"{available / _GB:.1f} GB of this host; data and batches take more."
    )
    if config.needs_ease:
        inverse, every = ease.needed_bytes(*dataset.train.shape)
        most = workers.local_size * every if config.evaluation.blend == "ease" else inverse
        yield f"EASE takes up to {most / _GB:.2f} GB more."
    if start is not None:
        yield start.description
    if start is not None and trains:
        training = config.training
        sharing = 1 if config.execution.divides_items else workers.size  # the users of a batch
        batches = TrainingBatches(dataset.train, training.batch_size_train, 0, 0.0, 0, sharing)
        share = batches.max_shard_users
        yield (
            f"Training: epochs {start.state.epoch + 1:,} to {training.epochs:,}, "
            f"{batches.steps_per_epoch:,} steps each, of {share:,} users per worker at most."
        )
        sent = _sent_bytes(config, architecture, weights, share) if workers.size > 1 else 0
        saved, number = checkpoint_bytes(architecture), config.checkpoints.keep_checkpoints + 2
        yield f"Traffic: {sent / _MB:,.1f} MB per step and worker."
        yield f"Checkpoint: {saved / _MB:,.1f} MB each, up to {number} at a time."
        folder = config.files.checkpoint_dir
        if folder is not None:
            later = CheckpointManager(folder).later_steps(start.last_step_in(folder))
            if later:
                moved = plural(len(later), "checkpoint")
                yield f"Would move {moved} of the previous run to replaced-N."
    outputs, folders, _ = config.paths()
    for flag, path in [*outputs, *folders]:
        if flag != "--checkpoint_dir" or trains:
            yield f"Would write: {flag} {path}"
    yield "Checked (--check): nothing is written."


def _sent_bytes(config: Config, architecture: Architecture, weights: int, users: int) -> int:
    """Return what a worker contributes to a step: gradients, or sums per user (``item_shard``)."""
    if not config.execution.divides_items:
        return (2 if config.execution.fp16_allreduce else 4) * weights
    encoders = 2 if architecture.prior == "composite" else 1
    return 4 * users * (encoders * architecture.hidden_dim + architecture.decoder_dim + 2)
