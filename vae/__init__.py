"""Variational autoencoder for collaborative filtering (Mult-VAE, Liang et al. 2018)."""

__version__ = "0.1.0"
