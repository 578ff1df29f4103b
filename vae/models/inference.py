"""Testing and inference on a trained model: the inference graph alone, its weights read once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.config import Config
from vae.errors import UserError
from vae.load import Dataset
from vae.models import checkpoint
from vae.models.checkpoint import CheckpointFolder
from vae.models.evaluation import Evaluation, evaluate, metric_depth
from vae.models.histories import feed
from vae.models.ranking import Ranking, build_ranking
from vae.models.session import open_session
from vae.models.timeline import run_traced
from vae.models.vae import VAE, Architecture
from vae.models.xla import compiled
from vae.utils.workers import Workers

Weights = Mapping[str, NDArray[np.float32]]

HISTORY_ITEMS = 70
"""Items of a benchmark user; an ML-20M user has 73 on average."""

QUERIES = 1000
WARM_UP_QUERIES = 50


def restore_weights(config: Config, dataset: Dataset, architecture: Architecture) -> Weights:
    """The weights of the latest checkpoint in ``config.checkpoint_dir``.

    Raises:
        UserError: there is none, it is damaged, or it does not fit the flags or the data.
    """
    if config.checkpoint_dir is None:
        raise UserError("No trained model: give --checkpoint_dir or add --train.")
    latest = CheckpointFolder(config.checkpoint_dir).latest()
    if latest is None:
        raise UserError(
            f"--checkpoint_dir {config.checkpoint_dir}: holds no checkpoint; "
            "train first, or name the folder that was trained into."
        )
    checkpoint.check_match(latest, checkpoint.read_state(latest), architecture, dataset.digest)
    return checkpoint.read_weights(latest)


@contextmanager
def open_model(
    config: Config,
    workers: Workers,
    architecture: Architecture,
    weights: Weights | None,
    k: int,
    max_users: int,
) -> Iterator[tuple[tf.Session, Ranking]]:
    """A session with the inference graph of a model; random weights where there are none."""
    with tf.Graph().as_default(), open_session(config, workers) as session:
        with compiled(config.xla):
            vae = VAE(architecture, config.seed)
            ranking = build_ranking(vae, k, max_users)
        if weights is None:
            session.run(tf.global_variables_initializer())
        else:
            for variable in vae.variables:
                variable.load(weights[variable.op.name], session)
        yield session, ranking


def test(
    config: Config,
    dataset: Dataset,
    workers: Workers,
    architecture: Architecture,
    weights: Weights,
) -> Evaluation:
    """Evaluates the model on the test users; every worker returns the whole result."""
    depth = metric_depth(architecture.items)
    batch = config.batch_size_validation
    with open_model(config, workers, architecture, weights, depth, batch) as (session, ranking):
        return evaluate(session, ranking, dataset.test, workers, batch)


def benchmark(
    config: Config, workers: Workers, architecture: Architecture, weights: Weights | None
) -> dict[str, float]:
    """Latency and throughput of one query after another, each from NumPy in to NumPy out.

    Args:
        config: the flags; ``top_results`` items are asked for.
        workers: only rank 0 should call this.
        architecture: of the model.
        weights: of a trained model, or None for random ones (the arithmetic is the same).

    Returns:
        ``batch_1_mean_throughput`` in users a second and ``batch_1_{mean,p90,p95,p99}_latency`` in
        seconds.
    """
    k = min(config.top_results, architecture.items)
    rng = np.random.default_rng(config.seed)
    with open_model(config, workers, architecture, weights, k, 1) as (session, ranking):
        query = session.make_callable(
            [ranking.items, ranking.scores],
            feed_list=[ranking.histories.items, ranking.histories.counts],
        )
        seconds = np.empty(QUERIES)
        for i in range(-WARM_UP_QUERIES, QUERIES):
            items, counts = random_histories(rng, architecture.items, 1)
            start = time.perf_counter()
            query(items, counts)
            if i >= 0:
                seconds[i] = time.perf_counter() - start
        if config.trace:
            user = csr_matrix(
                (np.ones(len(items)), items, [0, len(items)]), (1, architecture.columns)
            )
            run_traced(
                session,
                ranking.items,
                feed(ranking.histories, user),
                config.trace_path("inference"),
            )
    return latency_figures(seconds, users=1)


def random_histories(
    rng: np.random.Generator, items: int, users: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Columns and counts of users with random items of the whole catalogue, none of them twice."""
    size = min(HISTORY_ITEMS, items)
    columns = [rng.choice(items, size, replace=False) for _ in range(users)]
    return np.concatenate(columns), np.full(users, size, np.int32)


def latency_figures(seconds: NDArray[np.float64], users: int) -> dict[str, float]:
    """Throughput and latency percentiles of queries of ``users`` users each."""
    p90, p95, p99 = np.percentile(seconds, [90, 95, 99]).tolist()
    prefix = f"batch_{users}"
    return {
        f"{prefix}_mean_throughput": users * len(seconds) / float(seconds.sum()),
        f"{prefix}_mean_latency": float(seconds.mean()),
        f"{prefix}_p90_latency": p90,
        f"{prefix}_p95_latency": p95,
        f"{prefix}_p99_latency": p99,
    }
