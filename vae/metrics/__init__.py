"""Ranking metrics of Liang et al. (2018), in plain NumPy and SciPy."""

from vae.baselines.popularity import recommend_popular
from vae.metrics.aggregate import Moments, means_and_errors
from vae.metrics.ranking import LIANG_METRICS, liang_metrics, ndcg, recall

__all__ = [
    "LIANG_METRICS",
    "Moments",
    "liang_metrics",
    "means_and_errors",
    "ndcg",
    "recall",
    "recommend_popular",
]
