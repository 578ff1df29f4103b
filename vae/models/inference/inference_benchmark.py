"""``--inference_benchmark``: latency and throughput of consecutive queries."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.config import Config
from vae.models.graph.inference_graph import InferenceGraph
from vae.models.graph.precision import choose_precision
from vae.models.graph.session import run_traced
from vae.models.graph.sparse_input import feed
from vae.models.inference.trained_model import TrainedModel, open_inference_session
from vae.utils.distributed import Workers
from vae.utils.run_log import RunLog

HISTORY_ITEMS = 70
"""Items per benchmark user; ML-20M has 73 on average."""

_QUERIES = 1000
_WARM_UP_QUERIES = 50
_MIN_QUERIES = 30
_LATENCIES = ("mean", "p90", "p95", "p99")


def benchmark(
    config: Config,
    workers: Workers,
    log: RunLog,
    model: TrainedModel,
) -> dict[str, float]:
    """Measure queries of each batch size, from NumPy arrays to NumPy arrays.

    Args:
        config: flags of the run; a query returns ``top_results`` items per user.
        workers: as for ``open_session``; only rank 0 should call this.
        log: log of the run.
        model: trained or not, which does not change the speed.

    Returns:
        For each batch size B ``batch_B_mean_throughput`` in users per second, and
        ``batch_B_{mean,p90,p95,p99}_latency`` in seconds.
    """
    precision = choose_precision(config.execution.amp)
    log.say(f"Precision of inference: {precision.description}.")
    k = min(config.evaluation.top_results, model.architecture.items)
    sizes = config.evaluation.benchmark_batch_sizes
    inference = open_inference_session(config.execution, workers, model, k, max(sizes), precision)
    with inference as (session, graph):
        rng = np.random.default_rng(config.execution.seed)
        statistics: dict[str, float] = {}
        for size in sizes:
            with log.progress(f"Timing batches of {size}", 1, "sizes"):
                seconds = _time_queries(session, graph, rng, size)
            measured = _statistics(seconds, size)
            throughput, *latencies = measured.values()
            texts = (f"{1000 * s:.3g} ms {n}" for n, s in zip(_LATENCIES, latencies, strict=True))
            log.say(f"batch {size}: {throughput:,.0f} users/s   latency {'   '.join(texts)}")
            statistics |= measured
        if config.execution.trace:
            _trace(config, session, graph, rng)
    return statistics


def random_users(rng: np.random.Generator, items: int, users: int) -> csr_matrix:
    """Return a (users, items) uint8 matrix of histories of distinct random items."""
    size = min(HISTORY_ITEMS, items)
    indices = np.concatenate([rng.choice(items, size, replace=False) for _ in range(users)])
    starts = np.arange(users + 1) * size
    return csr_matrix((np.ones(len(indices), np.uint8), indices, starts), (users, items))


def _time_queries(
    session: tf.Session, graph: InferenceGraph, rng: np.random.Generator, users: int
) -> NDArray[np.float64]:
    """Return the seconds of each query after the warm-up, (queries,) float64."""
    queries = max(_MIN_QUERIES, _QUERIES // users)
    warm_up = min(_WARM_UP_QUERIES, queries)
    query = session.make_callable(
        [graph.items, graph.scores],
        feed_list=[graph.histories.items, graph.histories.counts],
    )
    seconds = []
    for _ in range(warm_up + queries):
        fed = feed(graph.histories, random_users(rng, graph.catalogue, users))
        start = time.perf_counter()
        query(fed[graph.histories.items], fed[graph.histories.counts])
        seconds.append(time.perf_counter() - start)
    return np.array(seconds[warm_up:])


def _statistics(seconds: NDArray[np.float64], users: int) -> Mapping[str, float]:
    """Return throughput and latencies of queries of ``users`` users each by their log keys."""
    latencies = (seconds.mean(), *np.percentile(seconds, [90, 95, 99]))
    return {f"batch_{users}_mean_throughput": users * len(seconds) / float(seconds.sum())} | {
        f"batch_{users}_{name}_latency": float(latency)
        for name, latency in zip(_LATENCIES, latencies, strict=True)
    }


def _trace(
    config: Config, session: tf.Session, graph: InferenceGraph, rng: np.random.Generator
) -> None:
    """Write the timeline of one query for one user."""
    user = random_users(rng, graph.catalogue, 1)
    path = config.trace_paths["inference"]
    run_traced(session, graph.items, feed(graph.histories, user), path)
