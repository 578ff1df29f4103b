"""``--check``: what a run would do, in a few lines of 100 columns, paths aside."""

from __future__ import annotations

from collections.abc import Iterator

from vae.config import Architecture, Config
from vae.load.batches import TrainingBatches
from vae.load.dataset import Dataset
from vae.models.checkpoints.resume import ResumePoint
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
    """Yield the plan of a run.

    Args:
        config: flags.
        architecture: of the model.
        dataset: prepared data set.
        workers: workers of the run.
        start: where training starts; None without ``--train``.
    """
    validation, test = (len(part.user_ids) for part in dataset.held_out)
    yield (
        f"Held out: {validation:,} validation users and {test:,} test users; "
        f"{dataset.train.nnz:,} interactions to train on."
    )
    weights = sum(parameters(architecture).values())
    kind = f"{architecture.encoder} encoder, {architecture.decoder} decoder"
    yield f"Model: {weights:,} parameters; {kind}, {architecture.prior} prior."
    trains = start is not None and start.finished is None
    needed = needed_bytes(architecture, trains, config.needs_checkpoint, False)
    available = available_bytes(workers.local_size)
    yield (
        f"Memory: the models take at least {workers.local_size * needed / _GB:.2f} GB of the "
        f"{available / _GB:.1f} GB of this host; data and batches take more."
    )
    if start is not None:
        yield start.description
    if start is not None and trains:
        training, size = config.training, workers.size
        batches = TrainingBatches(dataset.train, training.batch_size_train, 0, 0.0, 0, size)
        yield (
            f"Training: epochs {start.state.epoch + 1:,} to {training.epochs:,}, "
            f"{batches.steps_per_epoch:,} steps each, of {batches.max_shard_users:,} users per "
            "worker at most."
        )
        sent = (2 if config.execution.fp16_allreduce else 4) * weights if size > 1 else 0
        saved, number = checkpoint_bytes(architecture), config.checkpoints.keep_checkpoints + 2
        yield f"Traffic: {sent / _MB:,.1f} MB of gradients per step and worker."
        yield f"Checkpoint: {saved / _MB:,.1f} MB each, up to {number} at a time."
    outputs, folders, _ = config.paths()
    for flag, path in [*outputs, *folders]:
        if flag != "--checkpoint_dir" or trains:
            yield f"Would write: {flag} {path}"
    yield "Checked (--check): nothing is written."
