"""The modes of ``main.py``: a function for each, on what every mode of a command needs.

A mode takes the ``Run``, reads its flags there, and leaves its result there: the model, and what
``results.json`` and the last log line hold. All ranks call it; it knows itself which of them write.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from vae.baselines.best_unseen import best_unseen
from vae.baselines.ease import Ease
from vae.baselines.ease_choice import fit_ease
from vae.baselines.fit import fit_baselines
from vae.baselines.popularity import users_per_item
from vae.cli import as_json, flags_text, values_of
from vae.config import COMPARISONS, Architecture, Config, auto_values, parse_flags
from vae.load.dataset import Dataset
from vae.load.histories import UserHistories, prepared_histories
from vae.load.store import open_dataset
from vae.metrics.user_results import Comparison, UserResults
from vae.models.checkpoints.manager import CheckpointManager
from vae.models.checkpoints.resume import ResumePoint, find_resume_point, flags_of_checkpoint
from vae.models.checkpoints.train_state import TrainState, plural
from vae.models.inference import blend as blending
from vae.models.inference import inference_benchmark
from vae.models.inference.evaluate import Result, evaluate_model
from vae.models.inference.trained_model import TrainedModel, load_model
from vae.models.training.memory import (
    check_ease_memory,
    check_host,
    checkpoint_bytes,
    ease_fits,
)
from vae.models.training.train import Trainer
from vae.recommend.export import export as write_export
from vae.recommend.inputs import Inputs, check_outputs, read_inputs
from vae.recommend.recommender import Recommender
from vae.recommend.writer import (
    write_item_vectors,
    write_recommendations,
    write_scores,
    write_user_vectors,
)
from vae.report.comparison import comparison_tables
from vae.report.environment import program
from vae.report.plan import plan_lines
from vae.report.results import Results, open_outputs
from vae.utils.console import wrapped
from vae.utils.distributed import Workers, check_agreement, init, on_rank_0, raise_on_all
from vae.utils.run_log import RunLog


@dataclass
class Run:
    """What every mode of a command has.

    Attributes:
        config: flags.
        workers: workers of the run, of which this process is one.
        dataset: prepared data set.
        inputs: files that the flags name; empty but on rank 0.
        log: run log, which rank 0 writes.
        results: folder of ``--results_dir`` on rank 0, None without it.
        start: where training starts, None without ``--train``.
        model: the model, with random weights until it is trained or loaded.
        summary: metrics and statistics so far, by their log keys.
        ease: EASE, once a blend has fitted it.
    """

    config: Config
    workers: Workers
    dataset: Dataset
    inputs: Inputs
    log: RunLog
    results: Results | None
    start: ResumePoint | None
    model: TrainedModel
    summary: dict[str, float] = field(default_factory=dict)
    ease: Ease | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes."""
        return self.workers.rank == 0

    @property
    def histories(self) -> UserHistories:
        """The users in the file of ``--recommend``, or all prepared ones, for rank 0."""
        return self.inputs.histories or prepared_histories(self.dataset)

    @cached_property
    def recommender(self) -> Recommender:
        """The model with its data and titles, for rank 0."""
        return Recommender(
            self.dataset,
            self.model,
            self.config.execution,
            self.config.evaluation.batch_size_validation,
            self.workers,
            self.inputs.titles,
        )


@contextmanager
def open_run(given: Config, argv: Sequence[str] | None) -> Iterator[Run]:
    """Open what the modes need, and write the results and the last log line after them.

    What can be wrong with flags, data, checkpoints, inputs and outputs is found here, before hours
    of training.

    Args:
        given: flags of the command line.
        argv: the command line, which is parsed again with what a checkpoint knows.

    Raises:
        UserError: one of them cannot be used; on all ranks.
    """
    workers = init(given.execution.fp16_allreduce, 60 * given.execution.stall_timeout)
    check_agreement(workers, program())
    dataset = raise_on_all(workers, lambda: open_dataset(given.files.data_dir, given.files.dataset))
    check_agreement(workers, as_json(given) | {"the dataset fingerprint": dataset.fingerprint})
    folder, uses_blend = given.files.checkpoint_dir, given.uses_blend
    known = on_rank_0(workers, lambda: flags_of_checkpoint(folder, given.checkpoints, uses_blend))
    chosen = on_rank_0(workers, lambda: _chosen(given, dataset, workers))
    config = raise_on_all(workers, lambda: parse_flags(argv, chosen | known))
    model = TrainedModel(replace(config.model, items=len(dataset.item_ids)))
    inputs = raise_on_all(workers, lambda: _check(config, model.architecture, dataset, workers))
    new = TrainState(model.architecture, dataset.fingerprint, as_json(config))
    options, ends = config.checkpoints, (config.training.epochs, config.training.early_stop)
    find = partial(
        find_resume_point, new, dataset.item_ids, folder, options, *ends, dataset.grew_from
    )
    start = on_rank_0(workers, find) if config.modes.train else None
    completed = start.state.epoch if start is not None and _writes(config, start) else None
    epochs, only_check = config.training.epochs, config.modes.check
    with open_outputs(config.files, epochs, workers, completed, only_check) as (log, results):
        users, items = dataset.train.shape
        log.say(
            f"Data set {dataset.name}: {users:,} training users, {items:,} items; "
            f"{workers.description}."
        )
        log.log("PARAMETER", as_json(config))
        for sentence in inputs.descriptions:
            log.say(sentence)
        if chosen:
            log.say(wrapped(_choice(config, users)))
        if taken := _taken(known, given, config):
            log.say(wrapped(f"Taken from the checkpoint: {taken}."))
        run = Run(config, workers, dataset, inputs, log, results, start, model)
        yield run
        log.log((), run.summary)
        if results and run.summary:
            results.write(config, dataset, workers, run.summary)
            log.say(f"Report: {config.files.results_dir}/report.html")


def _check(
    config: Config, architecture: Architecture, dataset: Dataset, workers: Workers
) -> Inputs:
    """Check the host, and on rank 0 the outputs that the flags name; return the inputs."""
    train, divided = config.modes.train, config.execution.divides_items
    check_host(architecture, train, config.needs_checkpoint, workers, divided)
    if config.needs_ease:
        users, items = dataset.train.shape
        check_ease_memory(users, items, config.evaluation, workers)
    if workers.rank != 0:
        return Inputs()
    check_outputs(config.modes, config.files, config.trace_paths.values())
    return read_inputs(config.modes, config.files, dataset)


def _writes(config: Config, start: ResumePoint) -> bool:
    """Return whether a training run may write to its checkpoints.

    A finished run whose end was cut off may still write the choice of its blend.
    """
    return start.finished is None or config.evaluation.blend == "ease"


def _chosen(given: Config, dataset: Dataset, workers: Workers) -> dict[str, object]:
    """Return the flags whose values depend on the data: with ``--preset auto`` in training."""
    if given.presets.preset != "auto" or not given.modes.train:
        return {}
    users, items = dataset.train.shape
    return auto_values(users, not given.evaluation.explain and ease_fits(users, items, workers))


def _choice(config: Config, users: int) -> str:
    """Return what ``--preset auto`` chose and why, or what was given in its place."""
    training, is_blended = config.training, config.evaluation.blend == "ease"
    size = training.batch_size_train
    ends = f", fewer after {training.early_stop} validations without gain"
    ends = ends if training.early_stop else ""
    return (
        f"Preset auto: {config.presets.model}; for {users:,} users batches of "
        f"{size}, {math.ceil(users / size)} an epoch, at a rate of {training.lr:g}; at most "
        f"{plural(training.epochs, 'epoch')}{ends}; "
        f"{'blended with EASE, which fits into memory' if is_blended else 'no blend'}."
    )


def _taken(known: Mapping[str, object], given: Config, config: Config) -> str:
    """Return the flags whose values are those of a checkpoint."""
    before, now = values_of(given), values_of(config)
    return flags_text({n: v for n, v in known.items() if before[n] != v == now[n]})


def check(run: Run) -> None:
    """Check what is left to check before training, and print the plan."""
    config, start, workers = run.config, run.start, run.workers
    architecture, folder = run.model.architecture, config.files.checkpoint_dir
    if start is None and config.needs_checkpoint:
        load(run)
    elif start is not None and start.finished is None and folder is not None:
        size = checkpoint_bytes(architecture)
        on_rank_0(workers, lambda: CheckpointManager(folder).check_space(size))
    warm_start = config.checkpoints.warm_start
    if start is not None and start.checkpoint is None and warm_start is not None:
        run.log.say(f"Would start from the weights of {warm_start}.")
    for line in plan_lines(config, architecture, run.dataset, workers, start):
        run.log.say(line)


def train(run: Run) -> None:
    """Train the model from where training starts, unless it is finished."""
    config, start = run.config, run.start
    assert start is not None
    run.log.say(start.description)
    run.summary |= start.state.results()
    if start.finished is None:
        run.model, statistics = Trainer(
            dataset=run.dataset,
            start=start,
            architecture=run.model.architecture,
            objective=config.objective,
            training=config.training,
            execution=config.execution,
            batch_size_validation=config.evaluation.batch_size_validation,
            checkpoints=config.checkpoints,
            checkpoint_dir=config.files.checkpoint_dir,
            trace=config.trace_paths.get("train"),
            workers=run.workers,
            log=run.log,
        ).run()
        run.summary |= statistics


def load(run: Run) -> None:
    """Load the checkpoint that ``--checkpoint`` selects."""
    folder, which = run.config.files.checkpoint_dir, run.config.checkpoints.checkpoint
    assert folder is not None
    architecture = run.model.architecture
    run.model = load_model(folder, which, architecture, run.dataset, run.workers, run.log)


def blend(run: Run) -> None:
    """Mix the model with EASE."""
    evaluation, execution = run.config.evaluation, run.config.execution
    writes = run.start is not None and _writes(run.config, run.start)
    run.model, run.ease = blending.blend(
        run.model, run.dataset, evaluation, execution, run.workers, run.log, writes
    )


def test(run: Run) -> None:
    """Evaluate the model and the baselines on the test users.

    Rank 0 alone fits the baselines, each of which may take as much memory as the model.
    """
    users = run.dataset.test
    result = _evaluate(run, run.model, "the model")
    others: dict[str, UserResults] = {}
    settings: dict[str, float] = {}
    if run.model.is_blended and run.model.blend:
        settings = {f"blend_{name}": value for name, value in run.model.blend.items()}
        alone = _evaluate(run, run.model.unblended(), "the model alone")
        others["unblended"] = alone.user_results
    baselines, chosen = on_rank_0(run.workers, lambda: _test_baselines(run))
    comparison = Comparison(
        result.user_results,
        others | baselines,
        settings | chosen,
        np.diff(users.fold_in.indptr),
        users_per_item(run.dataset.train),
        result.seconds,
    )
    run.log.say(comparison_tables(comparison))
    run.summary |= comparison.summary()


def _evaluate(run: Run, model: TrainedModel, name: str) -> Result:
    batch_size, execution = run.config.evaluation.batch_size_validation, run.config.execution
    users, progress = run.dataset.test, partial(run.log.progress, f"Testing {name}")
    return evaluate_model(model, users, batch_size, execution, run.workers, progress)


def _test_baselines(run: Run) -> tuple[dict[str, UserResults], dict[str, float]]:
    """Return the results of each baseline, and the hyperparameters that were chosen."""
    users, flags = run.dataset.test, run.config.evaluation

    def find_ease() -> Ease:
        return run.ease or fit_ease(run.dataset, flags.ease_lambda, flags.ease_dropout, run.log)

    fitted = fit_baselines(flags.baseline_names, run.dataset, find_ease, run.log.progress)
    results = {}
    for name, baseline in fitted.items():
        with run.log.progress(f"Testing {COMPARISONS[name]}", len(users.user_ids)) as bar:
            ranking = best_unseen(baseline.scores, users.fold_in, advance=bar.update)
            results[name] = UserResults.of(ranking, users.targets)
    chosen = {name: value for one in fitted.values() for name, value in one.settings.items()}
    return results, chosen


def recommend(run: Run) -> None:
    """Write recommendations to ``--output``."""
    output, evaluation = run.config.files.output, run.config.evaluation
    if run.is_first and output is not None:
        k, explain = evaluation.top_results, evaluation.explain
        run.summary |= write_recommendations(
            output, run.recommender, run.histories, run.inputs.filters, k, explain, run.log
        )


def score(run: Run) -> None:
    """Write the scores of the users and items in ``--score`` to ``--output``."""
    output, pairs = run.config.files.output, run.inputs.pairs
    if output is not None and pairs is not None:  # on rank 0 alone
        run.summary |= write_scores(output, run.recommender, pairs, run.histories, run.log)


def similar_items(run: Run) -> None:
    """List the items most similar to that of ``--similar_items``."""
    item = run.config.modes.similar_items
    if run.is_first and item is not None:
        run.log.say(run.recommender.similar_items_text(item))


def export_items(run: Run) -> None:
    """Write the item vectors to ``--export_items``."""
    path = run.config.modes.export_items
    if run.is_first and path is not None:
        write_item_vectors(path, run.recommender, run.log)


def export_users(run: Run) -> None:
    """Write the user vectors to ``--export_users``."""
    path = run.config.modes.export_users
    if run.is_first and path is not None:
        write_user_vectors(path, run.recommender, run.histories, run.log)


def export(run: Run) -> None:
    """Write the SavedModel to ``--export``."""
    folder, evaluation = run.config.modes.export, run.config.evaluation
    if run.is_first and folder is not None:
        with run.log.progress("Exporting", 1, "models"):
            write_export(
                folder,
                run.dataset,
                run.model,
                run.summary,
                run.inputs.titles,
                evaluation.top_results,
                evaluation.export_dtype,
            )
        run.log.say(f"Exported: {folder}.")


def benchmark(run: Run) -> None:
    """Measure latency and throughput of inference."""
    if run.is_first:
        evaluation = run.config.evaluation
        run.summary |= inference_benchmark.benchmark(
            run.model,
            run.config.execution,
            run.workers,
            run.log,
            evaluation.top_results,
            evaluation.benchmark_batch_sizes,
            run.config.trace_paths.get("inference"),
        )
