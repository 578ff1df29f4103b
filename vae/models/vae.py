"""Mult-VAE, the variational autoencoder of Liang et al. (2018, arXiv:1802.05814), section 2.

A user's history becomes a distribution over the latent space (encoder), a sample of it a
distribution over all items (decoder)::

    I -> H -> 2 x Z (mean, log variance) -> Z -> H -> I logits
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from vae.models.sparse_input import SparseBatch
from vae.models.xla import uncompiled

ITEM_MULTIPLE = 8
"""Tensor cores want dimensions in multiples of eight; columns beyond the catalogue are masked."""

ACTIVATIONS = {
    "tanh": tf.nn.tanh,
    "relu": tf.nn.relu,
    "sigmoid": tf.nn.sigmoid,
    "elu": tf.nn.elu,
    "selu": tf.nn.selu,
}


@dataclass(frozen=True)
class Architecture:
    """What fixes the shapes of the weights and the meaning of the numbers in them."""

    items: int
    hidden_dim: int = 600
    latent_dim: int = 200
    activation: str = "tanh"

    @property
    def padded_items(self) -> int:
        """Items, padded to a multiple of ``ITEM_MULTIPLE``."""
        return math.ceil(self.items / ITEM_MULTIPLE) * ITEM_MULTIPLE


class Layer(NamedTuple):
    """Weights of a dense layer: kernel (in, out) and bias (out,), resource variables."""

    kernel: tf.Variable
    bias: tf.Variable


class VAE:
    """The model's variables and the tensors that come out of them.

    Building one adds its variables to the current graph.

    Args:
        architecture: shapes and activation.
        seed: of the initial weights (Glorot-uniform kernels, truncated normal biases of 0.001).
        item_dtype: of the last kernel, half of all weights; float32 for training.
    """

    def __init__(
        self, architecture: Architecture, seed: int, item_dtype: tf.DType = tf.float32
    ) -> None:
        self.architecture = architecture
        self._activation = ACTIVATIONS[architecture.activation]
        columns, hidden, latent = (
            architecture.padded_items,
            architecture.hidden_dim,
            architecture.latent_dim,
        )
        kernel_seeds = iter(np.random.SeedSequence(seed).generate_state(8).tolist())

        def layer(name: str, inputs: int, outputs: int, dtype: tf.DType = tf.float32) -> Layer:
            # Compiled, the initial weights would be drawn from another generator.
            with tf.variable_scope(name, use_resource=True), uncompiled():
                return Layer(
                    tf.get_variable(
                        "kernel",
                        [inputs, outputs],
                        dtype,
                        initializer=tf.glorot_uniform_initializer(next(kernel_seeds)),
                    ),
                    tf.get_variable(
                        "bias",
                        [outputs],
                        initializer=tf.truncated_normal_initializer(
                            stddev=0.001, seed=next(kernel_seeds)
                        ),
                    ),
                )

        self._encoder_hidden = layer("encoder/hidden", columns, hidden)
        self._encoder_latent = layer("encoder/latent", hidden, 2 * latent)
        self._decoder_hidden = layer("decoder/hidden", latent, hidden)
        self._decoder_items = layer("decoder/items", hidden, columns, item_dtype)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers, input side first."""
        return (
            self._encoder_hidden,
            self._encoder_latent,
            self._decoder_hidden,
            self._decoder_items,
        )

    @property
    def variables(self) -> list[tf.Variable]:
        """All weights, input side first."""
        return [variable for layer in self.layers for variable in layer]

    def encode(
        self, histories: SparseBatch, keep_probability: float = 1.0
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The latent distribution of each user.

        The input row is L2-normalised: 1 / sqrt(n) at each of the user's n items.

        Args:
            histories: the users' items; in training those that survived dropout, with ``counts``
                still those before dropout.
            keep_probability: the share of the input that survives dropout, which scales it up.

        Returns:
            Mean and log variance, each (B, Z) float32.
        """
        lengths = tf.maximum(tf.cast(histories.counts, tf.float32), 1.0)
        scale = tf.math.rsqrt(lengths) / keep_probability
        kernel, bias = self._encoder_hidden
        hidden = self._activation(histories.weighted_sum(scale, kernel) + bias)
        kernel, bias = self._encoder_latent
        mean, log_variance = tf.split(tf.matmul(hidden, kernel) + bias, 2, axis=1)
        return mean, log_variance

    def decode_hidden(self, latent: tf.Tensor) -> tf.Tensor:
        """(B, Z) latent representations to the decoder's (B, H) hidden layer."""
        kernel, bias = self._decoder_hidden
        return self._activation(tf.matmul(latent, kernel) + bias)

    @property
    def item_layer(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Kernel (H, I) and bias (I,) of the logits; the bias of a padded column is -inf.

        So a padded column has no probability, no gradient and no place in a ranking.
        """
        padding = self.architecture.padded_items - self.architecture.items
        mask = np.zeros(self.architecture.padded_items, np.float32)
        mask[self.architecture.items :] = -np.inf
        kernel, bias = self._decoder_items
        return tf.convert_to_tensor(kernel), bias + mask if padding else tf.convert_to_tensor(bias)


def sample(mean: tf.Tensor, log_variance: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Reparameterised sample of the latent distribution (section 2.2.1): mean + std * noise."""
    return mean + tf.exp(log_variance / 2) * noise


def kl_divergence(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """(B,) KL divergence of each user's latent distribution from the standard normal, in nats."""
    return 0.5 * tf.reduce_sum(tf.exp(log_variance) + tf.square(mean) - 1 - log_variance, axis=1)
