"""Popularity baseline: recommend the items that most training users have.

It is deterministic, so it also validates the split and the metrics, as in ``google-research/ials``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from vae.baselines.fit import Baseline
from vae.load.dataset import Dataset


def fit(dataset: Dataset, *_: Any) -> Baseline:
    """Return the baseline whose scores are the numbers of users, exact below 2^24."""
    popularity = users_per_item(dataset.train).astype(np.float32)
    return Baseline(lambda histories: popularity)


def popularity_scores(train: csr_matrix) -> NDArray[np.float32]:
    """Return the (I,) logarithms of the fraction of users that have each item of ``train``."""
    scores: NDArray[np.float32] = np.log(users_per_item(train) / train.shape[0]).astype(np.float32)
    return scores


def users_per_item(train: csr_matrix) -> NDArray[np.int64]:
    """Return the (I,) number of users that have each item of a (users, I) training matrix."""
    return np.bincount(train.indices, minlength=train.shape[1])
