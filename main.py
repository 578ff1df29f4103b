"""Train, test and benchmark a variational autoencoder for collaborative filtering.

This file shows the order of a run; the work is done in ``vae/``, where it can be tested. On one
machine, and on eight GPUs of one machine::

    python main.py --train --test --checkpoint_dir ./checkpoints
    mpirun -np 8 -H localhost:8 python main.py --train --checkpoint_dir ./checkpoints
"""

from __future__ import annotations

import sys

try:
    from collections.abc import Sequence

    from vae.cli import as_json, exit_code_of
    from vae.config import flags_text, parse_flags
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
    from vae.load.store import open_dataset
    from vae.models.checkpoints.manager import find_start, flags_of_checkpoint
    from vae.models.graph.vae import Architecture
    from vae.models.inference.blend import blend
    from vae.models.inference.evaluate import test
    from vae.models.inference.inference_benchmark import benchmark
    from vae.models.inference.trained_model import TrainedModel, load_model
    from vae.models.training.memory import check_host
    from vae.models.training.train import train
    from vae.recommend.export import export
    from vae.recommend.inputs import Inputs, read_inputs
    from vae.recommend.item_vectors import export_items
    from vae.recommend.recommend import recommend
    from vae.recommend.recommender import Recommender
    from vae.recommend.similar_items import similar_items_text
    from vae.report.comparison import comparison_tables
    from vae.report.environment import program
    from vae.report.results import open_outputs
    from vae.utils.distributed import check_agreement, init, on_rank_0, raise_on_all

    workers = init(given.fp16_allreduce, 60 * given.stall_timeout)
    is_first = workers.rank == 0
    check_agreement(workers, program())
    dataset = raise_on_all(workers, lambda: open_dataset(given.data_dir, given.dataset))
    check_agreement(workers, as_json(given) | {"the dataset fingerprint": dataset.fingerprint})
    known = on_rank_0(workers, lambda: flags_of_checkpoint(given))
    config = raise_on_all(workers, lambda: parse_flags(argv, known))
    architecture = Architecture(len(dataset.item_ids), **config.layers)
    raise_on_all(workers, lambda: check_host(config, architecture, workers))
    # What can be wrong with the inputs and outputs is found before hours of training.
    inputs = raise_on_all(workers, lambda: read_inputs(config, dataset) if is_first else Inputs())
    start = find_start(config, architecture, dataset, workers) if config.train else None

    trains = start is not None and start.finished is None
    # A finished run whose end was cut off may still write the choice of its blend.
    writes = trains or (config.train and config.blend == "ease")
    completed = start.state.epoch if start is not None and writes else None
    with open_outputs(config, workers, completed) as (log, results):
        log.begin(workers, config, dataset, inputs.descriptions)
        taken = {n: v for n, v in known.items() if getattr(given, n) != v == getattr(config, n)}
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
        if config.loads_a_model:
            model = load_model(config, dataset, architecture, workers, log)
        model = blend(config, dataset, workers, log, model, writes)
        if config.test:
            result = test(config, dataset, workers, log, model)
            log.say(comparison_tables(result))
            summary |= result.summary()
        recommender = Recommender(config, dataset, model, inputs.titles, workers)
        if config.recommend is not None and is_first:
            summary |= recommend(config, recommender, log, inputs.histories, inputs.rules)
        if config.similar_items is not None:
            log.say(similar_items_text(recommender, config.similar_items))
        if config.export_items is not None and is_first:
            log.say(export_items(config.export_items, recommender))
        if config.export is not None and is_first:
            with log.progress("Exporting", 1, "models"):
                folder = export(config, dataset, model, summary, inputs.titles)
            log.say(f"Exported: {folder}.")
        if config.inference_benchmark and is_first:
            summary |= benchmark(config, workers, log, model)
        log.log((), summary)
        if results and summary:
            results.write(config, dataset, workers, summary)
            log.say(f"Report: {config.results_dir}/report.html")


if __name__ == "__main__":
    open_console()
    sys.exit(main())
