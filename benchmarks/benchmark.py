"""Measure each part of the recipe against its roofline on this machine.

::

    python prepare_dataset.py --dataset synthetic --scale ml-20m --data_dir ./bench
    python benchmarks/benchmark.py --data_dir ./bench --json bench.json
    python benchmarks/benchmark.py --data_dir ./bench --model multvae,recvae

The roofline is the time of the matrix products of the last layer, and of RecVAE's hidden layers,
which are nearly all of the work: forward, gradient by the inputs and gradient by the kernel for
training, forward alone for evaluation. Each is timed in alternation with the part that is compared
to it, so that a drifting clock rate favours neither. The roofline of a single query is one read of
the last kernel from memory. A query goes from NumPy arrays to NumPy arrays; the part recommender
calls ``vae.Recommender.recommend`` with the items of one user, from a list to a pandas table.

Each part runs in its own process, so its peak memory includes no other part; those of several
models take turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import runs
from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

REPEATS = 7
RECOMMEND_REPEATS = 5
CALLS = 1000
MAX_CALL_SECONDS = 60
SLICE = 2048
PARTS = (
    "train-2048", "train-2048-amp", "train-24576", "train-24576-amp",
    "evaluate", "recommend", "query", "query-amp", "recommender", "prepare",
)  # fmt: skip
MODELS = {"multvae": "Mult-VAE", "recvae": "RecVAE"}


def main() -> int:
    """Run every part, or that of --part, and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--model", type=runs.words, default="multvae", help="or multvae,recvae")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument(
        "--part", choices=PARTS, help="run only this part, of one model, and print its JSON"
    )
    flags = parser.parse_args()
    if not set(flags.model) <= set(MODELS) or (flags.part and len(flags.model) > 1):
        parser.error(f"--model: pass {' or '.join(MODELS)}, or both with a comma without --part")
    if flags.part:
        result = run_part(flags.part, flags.data_dir, flags.dataset, *flags.model)
        usage = max(resource.getrusage(who).ru_maxrss for who in _WHO)
        print(json.dumps(result | {"peak_gb": usage * 1024 / 1e9}))
        return 0
    results = {}
    for part in PARTS:
        models = flags.model[:1] if part == "prepare" else flags.model  # no model prepares data
        results[part] = {model: _in_a_process(part, model, flags) for model in models}
    print(table(results))
    if flags.json:
        runs.write_json(flags.json, {"machine": runs.machine(), "parts": results})
    return 0


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def run_part(part: str, data_dir: Path, dataset: str, model: str) -> dict[str, Any]:
    """Return what a part measured, its roofline, and the fraction of the roofline reached."""
    what, _, rest = part.partition("-")
    amp = rest.endswith("amp")
    if what == "train":
        return training(data_dir, dataset, model, int(rest.split("-")[0]), amp)
    if what == "evaluate":
        return evaluation(data_dir, dataset, model)
    if what == "recommend":
        return recommendation(data_dir, dataset, model)
    if what == "query":
        return query(data_dir, dataset, model, amp)
    if what == "recommender":
        return calls(data_dir, dataset, model)
    return preparation(data_dir, dataset)


def training(data_dir: Path, name: str, model: str, batch_size: int, amp: bool) -> dict[str, Any]:
    """Measure training steps in users per second, input included."""
    import tensorflow.compat.v1 as tf

    from vae.config import parse_flags
    from vae.load.batches import TrainingBatches
    from vae.load.store import open_dataset
    from vae.models.graph.precision import choose_precision
    from vae.models.graph.session import open_session
    from vae.models.graph.train_step import TrainingStep
    from vae.models.graph.vae import VAE
    from vae.utils.distributed import init
    from vae.utils.threads import prefetch

    dataset = open_dataset(data_dir, name)
    more = ["--amp"] if amp else []
    config = parse_flags(["--train", "--model", model, *more])
    workers, precision = init(), choose_precision(amp)
    batches = TrainingBatches(dataset.train, batch_size, 0, config.objective.dropout)
    with tf.Graph().as_default(), open_session(workers, precision) as session:
        vae = VAE(replace(config.model, items=len(dataset.item_ids)), 0)
        parts = config.objective, config.training, config.execution.seed
        step = TrainingStep(vae, *parts, workers, batches.max_shard_users, precision)
        roofline = matmuls(session, step.precision.dtype, vae.architecture, min(batch_size, SLICE))
        session.run(tf.global_variables_initializer())
        elements = prefetch(batch for epoch in range(100) for batch in batches.epoch(epoch))
        full = (batch for batch in elements if batch.global_users == batch_size)

        def one_step() -> None:
            session.run([step.totals, step.update], step.feed(next(full)))

        seconds, roofline_seconds = in_turn(one_step, roofline, REPEATS)
    scale = batch_size / min(batch_size, SLICE)
    return throughput_result(batch_size, seconds, scale * roofline_seconds)


def evaluation(data_dir: Path, name: str, model: str) -> dict[str, Any]:
    """Measure ranking and scoring of the validation users, in users per second."""
    import tensorflow.compat.v1 as tf

    from vae.config import parse_flags
    from vae.load.store import open_dataset
    from vae.metrics.ranking import MAX_CUTOFF
    from vae.models.graph.inference_graph import build_inference_graph
    from vae.models.graph.session import open_session
    from vae.models.graph.vae import VAE
    from vae.models.inference.evaluate import evaluate
    from vae.utils.distributed import init

    dataset = open_dataset(data_dir, name)
    workers = init()
    users = dataset.validation.fold_in.shape[0]
    with tf.Graph().as_default(), open_session(workers) as session:
        layers = parse_flags(["--train", "--model", model]).model
        vae = VAE(replace(layers, items=len(dataset.item_ids)), 0)
        ranking = build_inference_graph(vae, min(MAX_CUTOFF, vae.architecture.items), users)
        roofline = matmuls(session, tf.float32, vae.architecture, SLICE, training=False)
        session.run(tf.global_variables_initializer())
        seconds, roofline_seconds = in_turn(
            lambda: evaluate(session, ranking, dataset.validation, workers, users),
            roofline,
            REPEATS,
        )
    scale = users / SLICE
    return throughput_result(users, seconds, scale * roofline_seconds)


def recommendation(data_dir: Path, name: str, model: str) -> dict[str, Any]:
    """Measure recommending 100 items to every prepared user, in users per second, CSV included."""
    import tensorflow.compat.v1 as tf

    from vae.load.histories import prepared_histories
    from vae.load.item_filters import ItemFilters
    from vae.models.graph.session import open_session
    from vae.recommend.writer import write_recommendations
    from vae.utils.run_log import RunLog

    recommender = untrained_recommender(data_dir, name, model)
    dataset, architecture = recommender.dataset, recommender.model.architecture
    log = RunLog(None)
    with (
        tempfile.TemporaryDirectory(dir=data_dir) as folder,
        tf.Graph().as_default(),
        open_session(recommender.workers) as session,
    ):
        roofline = matmuls(session, tf.float32, architecture, SLICE, training=False)
        session.run(tf.global_variables_initializer())
        throughput: list[float] = []

        def run() -> None:
            output, users = Path(folder) / "recommended.csv", prepared_histories(dataset)
            statistics = write_recommendations(
                output, recommender, users, ItemFilters(), 100, 0, log
            )
            throughput.append(statistics["recommend_throughput"])

        _, roofline_seconds = in_turn(run, roofline, RECOMMEND_REPEATS)
    users_per_second = np.array(throughput[1:])  # the first is the warm-up
    return {
        "measured": f"{np.median(users_per_second):,.0f} users/s",
        "roofline": f"{SLICE / np.median(roofline_seconds):,.0f} users/s",
        "fraction": float(np.median(users_per_second * roofline_seconds / SLICE)),
    }


def calls(data_dir: Path, name: str, model: str) -> dict[str, Any]:
    """Measure the latency of ``Recommender.recommend`` for one user: the first call, and others."""
    recommender = untrained_recommender(data_dir, name, model)
    ids, fold_in = recommender.dataset.item_ids, recommender.dataset.test.fold_in
    users = range(min(CALLS, fold_in.shape[0]))
    histories = itertools.cycle([ids[fold_in[user].indices].tolist() for user in users])
    seconds: list[float] = []
    while len(seconds) <= CALLS and sum(seconds) < MAX_CALL_SECONDS:
        start = time.perf_counter()
        recommender.recommend(next(histories))
        seconds.append(time.perf_counter() - start)
    first, others = seconds[0], np.array(seconds[1:])
    following = latency(others.mean(), np.percentile(others, 99))
    return {
        "measured": f"first {first * 1e3:.0f} ms; {len(others):,} more: {following}",
        "roofline": "",
        "fraction": None,
    }


def untrained_recommender(data_dir: Path, name: str, model: str) -> Any:
    """Return a ``vae.Recommender`` of a model with random weights, which are as fast as any."""
    from vae.config import parse_flags
    from vae.load.store import open_dataset
    from vae.models.inference.trained_model import TrainedModel
    from vae.recommend.recommender import Recommender
    from vae.utils.distributed import init

    dataset = open_dataset(data_dir, name)
    config = parse_flags(["--train", "--model", model])
    untrained = TrainedModel(replace(config.model, items=len(dataset.item_ids)))
    batch_size = config.evaluation.batch_size_validation
    return Recommender(dataset, untrained, config.execution, batch_size, init())


def query(data_dir: Path, name: str, model: str, amp: bool) -> dict[str, Any]:
    """Measure the latency of 1,000 queries for one user: of three rounds, the median one's."""
    import tensorflow.compat.v1 as tf

    from vae.config import parse_flags
    from vae.load.store import open_dataset
    from vae.models.graph.precision import choose_precision
    from vae.models.graph.session import open_session
    from vae.models.inference.inference_benchmark import benchmark
    from vae.models.inference.trained_model import TrainedModel
    from vae.utils.distributed import init
    from vae.utils.run_log import RunLog

    dataset = open_dataset(data_dir, name)
    more = ["--amp"] if amp else []
    config = parse_flags(["--inference_benchmark", "--model", model, *more])
    architecture, workers = replace(config.model, items=len(dataset.item_ids)), init()
    log = RunLog(None)
    untrained = TrainedModel(architecture)
    rounds = [benchmark(untrained, config.execution, workers, log, 100, [1]) for _ in range(3)]
    mean, p99 = sorted((r["batch_1_mean_latency"], r["batch_1_p99_latency"]) for r in rounds)[1]
    with tf.Graph().as_default(), open_session(workers) as session:
        dtype = choose_precision(amp).dtype
        # As many bytes as the last kernel, in float32: a maximum is cheap to compute, so the time
        # is that of reading.
        bytes_ = architecture.decoder_dim * architecture.padded_items * dtype.size
        kernel = tf.get_variable("kernel", [1000, bytes_ // 4000], use_resource=True)
        read = tf.reduce_max(kernel.read_value(), axis=1).op
        session.run(tf.global_variables_initializer())
        call = session.make_callable(read)
        roofline_seconds, _ = in_turn(call, call, 200)
    return {
        "measured": latency(mean, p99),
        "roofline": f"{np.median(roofline_seconds) * 1e3:.2f} ms",
        "fraction": float(np.median(roofline_seconds) / mean),
    }


def latency(mean: float, p99: float) -> str:
    """Return a mean and a 99th percentile in seconds, human-readable."""
    return f"{mean * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms"


def preparation(data_dir: Path, name: str) -> dict[str, Any]:
    """Measure the seconds of preparing the data set again, as a whole process."""
    source = data_dir / name / "extracted" / name / "ratings.csv"
    script = runs.ROOT / "prepare_dataset.py"
    command = [
        sys.executable, str(script), "--dataset", f"{name}-benchmark", "--ratings", str(source),
        "--data_dir", str(data_dir), "--force",
    ]  # fmt: skip
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return {"measured": f"{np.median(seconds):.1f} s", "roofline": "", "fraction": None}


def matmuls(
    session: Any, dtype: Any, architecture: Any, users: int, training: bool = True
) -> Callable[[], None]:
    """Return a function that runs the matrix products of the roofline for ``users`` users."""
    import tensorflow.compat.v1 as tf

    def matrix(name: str, *shape: int) -> Any:
        start = tf.random_normal_initializer(stddev=0.1)
        return tf.get_variable(f"roofline_{name}", shape, dtype, start, use_resource=True)

    products = []
    for name, (inputs, outputs) in architecture.shapes.items():
        if name != "decoder/items" and not name.startswith("encoder/hidden_"):
            continue  # little work, or of sparse inputs
        rows, kernel = matrix(f"{name}/rows", users, inputs), matrix(name, inputs, outputs)
        products.append(tf.matmul(rows, kernel))
        if training:
            gradients = matrix(f"{name}/gradients", users, outputs)
            products += [
                tf.matmul(gradients, kernel, transpose_b=True),
                tf.matmul(rows, gradients, transpose_a=True),
            ]

    def run() -> None:
        for product in products:
            session.run(product.op)

    return run


def in_turn(
    first: Callable[[], Any], second: Callable[[], Any], repeats: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the seconds of two calls that alternate, without the first of each, the warm-up.

    Returns:
        Two arrays of shape [repeats].
    """
    seconds = np.empty((repeats + 1, 2))
    for row in seconds:
        for column, call in enumerate((first, second)):
            start = time.perf_counter()
            call()
            row[column] = time.perf_counter() - start
    return seconds[1:, 0], seconds[1:, 1]


def throughput_result(
    users: int, seconds: NDArray[np.float64], roofline_seconds: NDArray[np.float64]
) -> dict[str, Any]:
    """Return what a part reports for the seconds of ``users`` users, its own and the roofline's."""
    return {
        "measured": f"{users / np.median(seconds):,.0f} users/s",
        "roofline": f"{users / np.median(roofline_seconds):,.0f} users/s",
        "fraction": float(np.median(roofline_seconds / seconds)),
    }


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the results by part and model as a Markdown table, the models side by side."""
    models = next(iter(results.values()))
    head = ["Part"]
    for model in models:
        head += [MODELS[model], "Roofline", "Fraction", "Peak memory"]
    rows = []
    for part, measured in results.items():
        row = [part]
        for result in measured.values():
            fraction = "" if result["fraction"] is None else f"{result['fraction']:.2f}"
            memory = f"{result['peak_gb']:.2f} GB"
            row += [result["measured"], result["roofline"], fraction, memory]
        rows.append(row + [""] * (len(head) - len(row)))
    return runs.markdown(head, rows)


def _in_a_process(part: str, model: str, flags: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, __file__, "--data_dir", flags.data_dir, "--dataset", flags.dataset,
        "--part", part, "--model", model,
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    sys.exit(main())
