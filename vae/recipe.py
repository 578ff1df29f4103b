"""The recipe: open the data, join the workers, then train, test and benchmark as asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import cast

import tensorflow.compat.v1 as tf

from vae.cli import as_json
from vae.config import Config
from vae.errors import UserError
from vae.load import Dataset, HeldOut, open_dataset
from vae.load.fold_in import prepared_histories
from vae.metrics import (
    LIANG_METRICS,
    Moments,
    liang_metrics,
    means_and_errors,
    recommend_popular,
)
from vae.metrics.ranking import LONGEST_CUTOFF
from vae.models.evaluate import Evaluation
from vae.models.inference_benchmark import benchmark
from vae.models.memory import available_bytes, check_memory
from vae.models.resumption import Start, find_start, nothing_left
from vae.models.train import train
from vae.models.trained_model import Model, restore_model, test
from vae.models.vae import Architecture
from vae.recommend.export import check_export, export
from vae.recommend.inputs import Inputs, describe, read_inputs
from vae.recommend.recommend import recommend
from vae.recommend.similar_items import similar_items_table
from vae.report.results import Results
from vae.report.tensorboard import Summaries
from vae.utils.atomic import check_file, lock_folder, make_folder
from vae.utils.distributed import Workers, check_agreement, connect, together
from vae.utils.run_log import UNITS, Follower, RunLog


def run_recipe(config: Config) -> None:
    """Runs the modes that the flags name, one after another, on one model.

    Raises:
        UserError: the data or the checkpoint cannot be used.
    """
    workers = connect(config.fp16_allreduce)
    dataset = together(workers, lambda: open_dataset(config.data_dir, config.dataset))
    check_agreement(workers, as_json(config) | {"the data's digest": dataset.digest})
    architecture = Architecture(
        len(dataset.item_ids), config.hidden_dim, config.latent_dim, config.activation
    )
    together(workers, lambda: check_host(config, architecture, workers))
    is_first = workers.rank == 0
    together(workers, lambda: check_outputs(config) if is_first else None)
    inputs = together(workers, lambda: read_inputs(config, dataset) if is_first else Inputs())
    start = agree_on_start(config, architecture, dataset, workers) if config.train else None
    over = nothing_left(config, start.state) if start is not None else None
    trains = start is not None and over is None
    with locked_folders(config, workers, trains):
        # Only now: a run that is refused leaves the log that it may share with another as it is.
        results, followers = together(
            workers, lambda: open_results(config) if is_first else (None, [])
        )
        log = together(workers, lambda: RunLog(config.log_path, is_first, followers))
        log.say(f"Workers: {workers.description}.")
        log.parameters(as_json(config))
        log.units(UNITS)
        for sentence in describe(config, inputs):
            log.say(sentence)
        summary: dict[str, float] = {}
        model: Model | None = None
        if start is not None:
            log.say(start.description)
            if over is not None:
                log.say(f"Nothing is left to train: {over}.")
            else:
                model, figures = train(config, dataset, workers, log, start)
                summary |= figures
        if config.loads_a_model:
            model = restore_model(config, dataset, architecture, workers, log)
        if config.test and model is not None:
            result = test(config, dataset, workers, model)
            popular = popularity_baseline(dataset)
            log.say(comparison_table(result, popular))
            summary |= test_figures(result, popular)
        if model is not None and is_first:
            summary |= put_to_use(config, dataset, workers, log, model, inputs, summary)
        if config.inference_benchmark and is_first:
            summary |= benchmark(config, workers, log, model or Model(architecture))
        log.log((), summary)
        if results and summary:
            results.write(config, dataset, workers, summary)
            log.say(f"Figures, curves and a report of the run: {config.results_dir}/report.html")


def put_to_use(
    config: Config,
    dataset: Dataset,
    workers: Workers,
    log: RunLog,
    model: Model,
    inputs: Inputs,
    figures: Mapping[str, float],
) -> dict[str, float]:
    """Recommends, compares items and exports, as asked for; returns what was measured.

    Raises:
        UserError: an output cannot be written.
    """
    measured: dict[str, float] = {}
    titles = inputs.titles
    if config.recommend is not None:
        users = prepared_histories(dataset) if inputs.histories is None else inputs.histories
        measured |= recommend(config, dataset, workers, log, model, users, titles)
    if inputs.similar_to is not None:
        log.say(similar_items_table(dataset, model, inputs.similar_to, titles))
    if config.export is not None:
        tested = {name: figures[name] for name in figures if name.startswith(("test_", "popul"))}
        log.say(f"Exported: {export(config, dataset, model, tested, titles)}.")
    return measured


def check_host(config: Config, architecture: Architecture, workers: Workers) -> None:
    """Makes sure that this host has the memory for its workers' models.

    Raises:
        UserError: it has not.
    """
    check_memory(
        architecture,
        config.train,
        config.loads_a_model,
        bool(tf.config.list_physical_devices("GPU")),
        available_bytes(workers.local_size),
        workers.local_size,
    )


def agree_on_start(
    config: Config, architecture: Architecture, dataset: Dataset, workers: Workers
) -> Start:
    """Where training starts: rank 0, which has the checkpoints, finds it for all."""

    def find() -> Start | None:
        return find_start(config, architecture, dataset) if workers.rank == 0 else None

    return cast(Start, workers.gather(together(workers, find))[0])


def check_outputs(config: Config) -> None:
    """Make sure, before a long run, that what it writes at its end can be written.

    Raises:
        UserError: a file or folder cannot be.
    """
    if config.export is not None:
        check_export(config.export)
    if config.output is not None:
        check_file(config.output, "--output")
    for path in config.trace_paths:
        check_file(path, "--trace")


@contextmanager
def locked_folders(config: Config, workers: Workers, trains: bool) -> Iterator[None]:
    """Keeps other runs from writing into this run's folders until the end of the block.

    Rank 0, who writes, locks them.

    Raises:
        UserError: a folder cannot be written, or another run is writing there; on all ranks.
    """
    written = {
        "--checkpoint_dir": config.checkpoint_dir if trains else None,
        "--results_dir": config.results_dir,
    }

    def lock() -> None:
        # One folder may have both roles, and can be locked once.
        folders = {path.resolve(): (path, flag) for flag, path in written.items() if path}
        for path, flag in folders.values() if workers.rank == 0 else ():
            make_folder(path, flag)
            try:
                locks.callback(os.close, lock_folder(path))
            except BlockingIOError:
                raise UserError(
                    f"{flag} {path}: another run is writing there; wait for its end, or name "
                    "another folder."
                ) from None

    with ExitStack() as locks:
        together(workers, lock)
        yield


def open_results(config: Config) -> tuple[Results | None, list[Follower]]:
    """The folder of results, if the flags ask for one, and what follows the log.

    Raises:
        UserError: a folder cannot be written.
    """
    followers: list[Follower] = []
    results = Results(config.results_dir) if config.results_dir else None
    if results:
        followers.append(results.history)
    if config.tensorboard_dir:
        followers.append(Summaries(config.tensorboard_dir))
    return results, followers


def popularity_baseline(dataset: Dataset) -> dict[str, Moments]:
    """The metrics that recommending the most popular items reaches on the test users."""
    held_out: HeldOut = dataset.test
    ranking = recommend_popular(dataset.train, held_out.fold_in, LONGEST_CUTOFF)
    return liang_metrics(ranking, held_out.ranked)


def test_figures(result: Evaluation, popular: Mapping[str, Moments]) -> dict[str, float]:
    """The test's part of the closing summary."""
    model = {f"test_{name}": value for name, value in result.figures().items()}
    baseline = {f"popularity_{name}": value for name, value in means_and_errors(popular).items()}
    return model | baseline | {"test_users": result.scored_users, "test_time": result.seconds}


def comparison_table(result: Evaluation, popular: Mapping[str, Moments]) -> str:
    """The metrics of the model beside those of the most popular items, for people."""
    lines = [
        f"Test on {result.users} held-out users, {result.scored_users} of them with items to rank:",
        f"{'':12}{'model':>20}{'most popular':>20}",
    ]
    for name in LIANG_METRICS:
        columns = (_with_error(moments[name]) for moments in (result.metrics, popular))
        lines.append(f"{name:12}" + "".join(f"{column:>20}" for column in columns))
    return "\n".join(lines)


def _with_error(moments: Moments) -> str:
    return f"{moments.mean:.5f} ± {moments.standard_error:.5f}"
