"""``--inference_benchmark``: latency and throughput of consecutive queries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.config import Execution
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


def benchmark(
    model: TrainedModel,
    execution: Execution,
    workers: Workers,
    log: RunLog,
    top_results: int,
    batch_sizes: Sequence[int],
    trace: Path | None = None,
) -> dict[str, float]:
    """Measure queries of each batch size, from NumPy arrays to NumPy arrays, on rank 0.

    The model is trained or not, which does not change the speed; its histories are random. The
    timeline of one query is written to ``trace``, if that is given.

    Returns:
        For each batch size B ``batch_B_mean_throughput`` in users per second, and
        ``batch_B_{mean,p90,p95,p99}_latency`` in seconds.
    """
    precision = choose_precision(execution.amp)
    log.say(f"Precision of inference: {precision.description}.")
    k = min(top_results, model.architecture.items)
    items = model.architecture.items
    rng = np.random.default_rng(execution.seed)
    statistics: dict[str, float] = {}
    for size in batch_sizes:
        inference = open_inference_session(model, execution, workers, k, size, precision)
        with inference as (session, graph), log.progress(f"Timing batches of {size}", 1, "sizes"):
            seconds = _time_queries(session, graph, rng, items, size)
        throughput = size * len(seconds) / float(seconds.sum())
        latencies = {"mean": float(seconds.mean())} | {
            f"p{percent}": float(np.percentile(seconds, percent)) for percent in (90, 95, 99)
        }
        texts = (f"{1000 * latency:.3g} ms {name}" for name, latency in latencies.items())
        log.say(f"batch {size}: {throughput:,.0f} users/s   latency {'   '.join(texts)}")
        statistics[f"batch_{size}_mean_throughput"] = throughput
        statistics |= {f"batch_{size}_{name}_latency": s for name, s in latencies.items()}
    if trace is not None:
        inference = open_inference_session(model, execution, workers, k, 1, precision)
        with inference as (session, graph):
            user = _random_users(rng, items, 1)
            run_traced(session, graph.items, feed(graph.histories, user), trace)
    return statistics


def _random_users(rng: np.random.Generator, items: int, users: int) -> csr_matrix:
    """Return a (users, items) uint8 matrix of histories of distinct random items."""
    size = min(HISTORY_ITEMS, items)
    indices = np.concatenate([rng.choice(items, size, replace=False) for _ in range(users)])
    starts = np.arange(users + 1) * size
    return csr_matrix((np.ones(len(indices), np.uint8), indices, starts), (users, items))


def _time_queries(
    session: tf.Session, graph: InferenceGraph, rng: np.random.Generator, items: int, users: int
) -> NDArray[np.float64]:
    """Return the seconds of each query after the warm-up, (queries,) float64."""
    queries = max(_MIN_QUERIES, _QUERIES // users)
    warm_up = min(_WARM_UP_QUERIES, queries)
    inputs = [graph.histories.items, graph.histories.counts]
    query = session.make_callable([graph.items, graph.scores], feed_list=inputs)
    seconds = []
    for _ in range(warm_up + queries):
        fed = feed(graph.histories, _random_users(rng, items, users))
        values = [fed[tensor] for tensor in inputs]
        start = time.perf_counter()
        query(*values)
        seconds.append(time.perf_counter() - start)
    return np.array(seconds[warm_up:])
