"""Train, test and benchmark a variational autoencoder for collaborative filtering.

This file shows the order of a run; the work is done in ``vae/``, where it can be tested. On one
machine, and on eight GPUs of one machine::

    python main.py --train --test --checkpoint_dir ./checkpoints
    mpirun -np 8 -H localhost:8 python main.py --train --checkpoint_dir ./checkpoints
"""

from __future__ import annotations

import dataclasses
import sys

try:
    from collections.abc import Sequence

    from vae.cli import as_json, exit_code_of, flags_text, values_of
    from vae.config import parse_flags
    from vae.utils.console import open_console
except KeyboardInterrupt:  # main() takes those that come later
    sys.exit(130)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process; return the exit code."""
    return exit_code_of("main.py", lambda: run(argv))


def run(argv: Sequence[str] | None) -> None:
    """Run the modes that the flags name, one after another, on one model.

    Raises:
        UserError: a flag, the data, a checkpoint or a file cannot be used.
    """
    given = parse_flags(argv)
    # TensorFlow takes seconds to import: --help and a wrong flag do not wait for it.
    from vae.load.histories import prepared_histories
    from vae.load.store import open_dataset
    from vae.models.checkpoints.manager import find_start, flags_of_checkpoint
    from vae.models.inference.blend import blend
    from vae.models.inference.evaluate import test
    from vae.models.inference.inference_benchmark import benchmark
    from vae.models.inference.trained_model import TrainedModel, load_model
    from vae.models.training.memory import check_host
    from vae.models.training.train import train
    from vae.recommend.export import export
    from vae.recommend.inputs import Inputs, check_outputs, read_inputs
    from vae.recommend.recommender import Recommender
    from vae.recommend.writer import write_item_vectors, write_recommendations
    from vae.report.environment import program
    from vae.report.results import open_outputs
    from vae.utils.distributed import check_agreement, init, on_rank_0, raise_on_all

    workers = init(given.execution.fp16_allreduce, 60 * given.execution.stall_timeout)
    is_first = workers.rank == 0
    check_agreement(workers, program())
    dataset = raise_on_all(workers, lambda: open_dataset(given.files.data_dir, given.files.dataset))
    check_agreement(workers, as_json(given) | {"the dataset fingerprint": dataset.fingerprint})
    known = on_rank_0(workers, lambda: flags_of_checkpoint(given))
    config = raise_on_all(workers, lambda: parse_flags(argv, known))
    architecture = dataclasses.replace(config.model, items=len(dataset.item_ids))
    raise_on_all(workers, lambda: check_host(config, architecture, workers))

    # What can be wrong with the inputs and outputs is found before hours of training.
    def read() -> Inputs:
        traces = config.trace_paths.values()
        check_outputs(config.modes, config.files, traces)
        return read_inputs(config.modes, config.files, dataset)

    inputs = raise_on_all(workers, lambda: read() if is_first else Inputs())
    start = find_start(config, architecture, dataset, workers) if config.modes.train else None

    trains = start is not None and start.finished is None
    # A finished run whose end was cut off may still write the choice of its blend.
    writes = trains or (config.modes.train and config.evaluation.blend == "ease")
    completed = start.state.epoch if start is not None and writes else None
    with open_outputs(config, workers, completed) as (log, results):
        log.begin(workers, config, dataset, inputs.descriptions)
        before, now = values_of(given), values_of(config)
        taken = {n: v for n, v in known.items() if before[n] != v == now[n]}
        if taken:
            log.say(f"Taken from the checkpoint: {flags_text(taken)}.")
        model = TrainedModel(architecture)  # random weights, which the benchmark can do with
        summary: dict[str, float] = {}
        if start is not None:
            log.say(start.description)
            summary |= start.state.results()
        if start is not None and trains:
            model, statistics = train(config, dataset, architecture, workers, log, start)
            summary |= statistics
        if config.needs_checkpoint:
            model = load_model(config, dataset, architecture, workers, log)
        model = blend(config, dataset, workers, log, model, writes)
        if config.modes.test:
            result = test(config, dataset, workers, log, model)
            log.say(result.table())
            summary |= result.summary()
        evaluation, folder = config.evaluation, config.modes.export
        recommender = Recommender(
            dataset,
            model,
            config.execution,
            evaluation.batch_size_validation,
            workers,
            inputs.titles,
        )
        if config.modes.recommend is not None and is_first:
            assert config.files.output is not None
            users = inputs.histories or prepared_histories(dataset)
            k, explain = evaluation.top_results, evaluation.explain
            summary |= write_recommendations(
                config.files.output, recommender, users, inputs.filters, k, explain, log
            )
        if config.modes.similar_items is not None and is_first:
            log.say(recommender.similar_items_text(config.modes.similar_items))
        if config.modes.export_items is not None and is_first:
            log.say(write_item_vectors(config.modes.export_items, recommender))
        if folder is not None and is_first:
            k, dtype = evaluation.top_results, evaluation.export_dtype
            with log.progress("Exporting", 1, "models"):
                export(folder, dataset, model, summary, inputs.titles, k, dtype)
            log.say(f"Exported: {folder}.")
        if config.modes.inference_benchmark and is_first:
            summary |= benchmark(config, workers, log, model)
        log.log((), summary)
        if results and summary:
            results.write(config, dataset, workers, summary)
            log.say(f"Report: {config.files.results_dir}/report.html")


if __name__ == "__main__":
    open_console()
    sys.exit(main())
