"""Train, test and benchmark a variational autoencoder for collaborative filtering.

This file shows the order of a run; the work is done in ``vae/``, where it can be tested. On one
machine, and on eight GPUs of one machine::

    python main.py --train --test --checkpoint_dir ./checkpoints
    mpirun -np 8 -H localhost:8 python main.py --train --checkpoint_dir ./checkpoints
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vae.cli import as_json, exit_code_of
from vae.config import Config, parse_flags
from vae.utils.console import open_console


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process; return the exit code."""
    return exit_code_of("main.py", lambda: run(parse_flags(argv)))


def run(config: Config) -> None:
    """Run the modes that the flags name, one after another, on one model.

    Raises:
        UserError: the data, a checkpoint or a file cannot be used.
    """
    # TensorFlow takes seconds to import: --help and a wrong flag do not wait for it.
    from vae.load.store import open_dataset
    from vae.models.blend import blend
    from vae.models.checkpoint_manager import find_start
    from vae.models.evaluate import test
    from vae.models.inference_benchmark import benchmark
    from vae.models.memory import check_host
    from vae.models.train import train
    from vae.models.trained_model import TrainedModel, load_model
    from vae.models.vae import Architecture
    from vae.recommend.export import export
    from vae.recommend.inputs import Inputs, read_inputs
    from vae.recommend.item_vectors import export_items
    from vae.recommend.recommend import recommend
    from vae.recommend.recommender import Recommender
    from vae.recommend.similar_items import similar_items_text
    from vae.report.environment import program
    from vae.report.results import open_outputs
    from vae.utils.distributed import check_agreement, init, raise_on_all

    workers = init(config.fp16_allreduce, 60 * config.stall_timeout)
    is_first = workers.rank == 0
    check_agreement(workers, program())
    dataset = raise_on_all(workers, lambda: open_dataset(config.data_dir, config.dataset))
    check_agreement(workers, as_json(config) | {"the dataset fingerprint": dataset.fingerprint})
    architecture = Architecture(len(dataset.item_ids), **config.layers)
    raise_on_all(workers, lambda: check_host(config, architecture, workers))
    # What can be wrong with the inputs and outputs is found before hours of training.
    inputs = raise_on_all(workers, lambda: read_inputs(config, dataset) if is_first else Inputs())
    start = find_start(config, architecture, dataset, workers) if config.train else None

    trains = start is not None and start.finished is None
    with open_outputs(config, workers, trains) as (log, results):
        log.begin(workers, config, dataset, inputs.descriptions)
        model = TrainedModel(architecture)  # random weights, which the benchmark can do with
        summary: dict[str, float] = {}
        if start is not None:
            log.say(start.description)
        if start is not None and trains:
            model, statistics = train(config, dataset, architecture, workers, log, start)
            summary |= statistics
        if config.loads_a_model:
            model = load_model(config, dataset, architecture, workers, log)
        if config.blend is not None:
            model = blend(config, dataset, workers, log, model, trains)
        if config.test:
            result = test(config, dataset, workers, log, model)
            log.say(result.table())
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
