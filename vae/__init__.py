"""Variational autoencoder for collaborative filtering (Mult-VAE, Liang et al. 2018)."""

from typing import Any

from vae.version import __version__ as __version__


def __getattr__(name: str) -> Any:
    """Import ``Recommender``, and TensorFlow with it, when it is first used."""
    if name == "Recommender":
        from vae.recommend.recommender import Recommender

        return Recommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
