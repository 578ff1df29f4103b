"""``--inference_benchmark``: latency and throughput of queries, one after another."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.config import Config
from vae.models.inference_graph import InferenceGraph
from vae.models.precision import choose_precision
from vae.models.sparse_input import feed
from vae.models.timeline import run_traced
from vae.models.trained_model import TrainedModel, open_inference_session
from vae.utils.distributed import Workers
from vae.utils.run_log import RunLog

HISTORY_ITEMS = 70
"""Items of a benchmark user; an ML-20M user has 73 on average."""

_QUERIES = 1000
_WARM_UP_QUERIES = 50
_MIN_QUERIES = 30


def benchmark(
    config: Config,
    workers: Workers,
    log: RunLog,
    model: TrainedModel,
) -> dict[str, float]:
    """Times queries of each batch size, from NumPy arrays in to NumPy arrays out.

    Args:
        config: the flags; ``top_results`` items are asked for.
        workers: only rank 0 should call this.
        log: told the precision.
        model: trained or not, the arithmetic is the same.

    Returns:
        For each batch size B ``batch_B_mean_throughput`` in users a second, and
        ``batch_B_{mean,p90,p95,p99}_latency`` in seconds.
    """
    precision = choose_precision(config.amp)
    log.say(f"Precision of inference: {precision.description}.")
    k = min(config.top_results, model.architecture.items)
    sizes = config.benchmark_batch_sizes
    with open_inference_session(config, workers, model, k, max(sizes), precision) as (
        session,
        ranking,
    ):
        rng = np.random.default_rng(config.seed)
        figures: dict[str, float] = {}
        for size in sizes:
            figures |= _latency_figures(_time_queries(session, ranking, rng, size), size)
        if config.trace:
            _trace(config, session, ranking, rng)
    return figures


def random_users(rng: np.random.Generator, items: int, users: int) -> csr_matrix:
    """(users, items) histories of random items of the whole catalogue, none of them twice."""
    size = min(HISTORY_ITEMS, items)
    columns = np.concatenate([rng.choice(items, size, replace=False) for _ in range(users)])
    starts = np.arange(users + 1) * size
    return csr_matrix((np.ones(len(columns), np.uint8), columns, starts), (users, items))


def _time_queries(
    session: tf.Session, ranking: InferenceGraph, rng: np.random.Generator, users: int
) -> NDArray[np.float64]:
    """Seconds of each query, the first ones left out."""
    items = ranking.catalogue
    queries = max(_MIN_QUERIES, _QUERIES // users)
    warm_up = min(_WARM_UP_QUERIES, queries)
    query = session.make_callable(
        [ranking.items, ranking.scores],
        feed_list=[ranking.histories.items, ranking.histories.counts],
    )
    seconds = []
    for _ in range(warm_up + queries):
        fed = feed(ranking.histories, random_users(rng, items, users))
        start = time.perf_counter()
        query(fed[ranking.histories.items], fed[ranking.histories.counts])
        seconds.append(time.perf_counter() - start)
    return np.array(seconds[warm_up:])


def _latency_figures(seconds: NDArray[np.float64], users: int) -> Mapping[str, float]:
    """Throughput and latency percentiles of queries of ``users`` users each."""
    p90, p95, p99 = np.percentile(seconds, [90, 95, 99]).tolist()
    return {
        f"batch_{users}_mean_throughput": users * len(seconds) / float(seconds.sum()),
        f"batch_{users}_mean_latency": float(seconds.mean()),
        f"batch_{users}_p90_latency": p90,
        f"batch_{users}_p95_latency": p95,
        f"batch_{users}_p99_latency": p99,
    }


def _trace(
    config: Config, session: tf.Session, ranking: InferenceGraph, rng: np.random.Generator
) -> None:
    """Writes the timeline of one query of one user."""
    user = random_users(rng, ranking.catalogue, 1)
    path = config.trace_path("inference")
    run_traced(session, ranking.items, feed(ranking.histories, user), path)
