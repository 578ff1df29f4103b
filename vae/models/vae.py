"""Mult-VAE, the variational autoencoder of Liang et al. (2018, arXiv:1802.05814), section 2.

The encoder maps a user's history to a distribution over the latent space, the decoder maps a sample
of it to a distribution over all items::

    I -> H -> 2 x Z (mean, log variance) -> Z -> H -> I logits
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from vae.models.session import uncompiled
from vae.models.sparse_input import SparseBatch

ITEM_MULTIPLE = 8
"""Tensor cores need dimensions in multiples of eight; the padded items are masked."""


@dataclass(frozen=True)
class Architecture:
    """Shapes of the weights, and the activation.

    Attributes:
        items: I before padding, the number of items of the data set.
        hidden_dim: H, units of the hidden layers of encoder and decoder.
        latent_dim: Z, dimensions of the latent space.
        activation: activation function of the hidden layers, a name of ``config.ACTIVATIONS``.
    """

    items: int
    hidden_dim: int = 600
    latent_dim: int = 200
    activation: str = "tanh"

    @property
    def padded_items(self) -> int:
        """I, the number of items padded to a multiple of ``ITEM_MULTIPLE``."""
        return math.ceil(self.items / ITEM_MULTIPLE) * ITEM_MULTIPLE


class Layer(NamedTuple):
    """Resource variables of a dense layer: kernel (inputs, outputs) and bias (outputs,)."""

    kernel: tf.Variable
    bias: tf.Variable


class VAE:
    """The model's variables, which are added to the current graph, and its layers.

    Kernels are initialised uniformly as by Glorot and Bengio (2010, "Understanding the difficulty
    of training deep feedforward neural networks", equation 16), biases from a truncated normal
    distribution with standard deviation 0.001, as in the code of Liang et al.

    Args:
        architecture: shapes and activation.
        seed: of the initial weights.
        item_dtype: dtype of the last kernel, half of all weights; float32 for training.
    """

    def __init__(
        self, architecture: Architecture, seed: int, item_dtype: tf.DType = tf.float32
    ) -> None:
        self.architecture = architecture
        self._activation = getattr(tf.nn, architecture.activation)
        items, hidden, latent = (
            architecture.padded_items,
            architecture.hidden_dim,
            architecture.latent_dim,
        )
        kernel_seeds = iter(np.random.SeedSequence(seed).generate_state(8).tolist())

        def layer(name: str, inputs: int, outputs: int, dtype: tf.DType = tf.float32) -> Layer:
            # Compiled, the initial weights would come from another generator.
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

        self._encoder_hidden = layer("encoder/hidden", items, hidden)
        self._encoder_latent = layer("encoder/latent", hidden, 2 * latent)
        self._decoder_hidden = layer("decoder/hidden", latent, hidden)
        self._decoder_items = layer("decoder/items", hidden, items, item_dtype)

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
        """Return the latent distribution of each user.

        The input row is L2-normalised: 1 / sqrt(n) at each of the user's n items.

        Args:
            histories: items of B users; in training those that survived dropout, while ``counts``
                are those before dropout.
            keep_probability: fraction of the input that survives dropout; the rest is scaled up.

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
        """Return the decoder's (B, H) float32 hidden layer of (B, Z) latent representations."""
        kernel, bias = self._decoder_hidden
        return self._activation(tf.matmul(latent, kernel) + bias)

    @property
    def item_layer(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Kernel (H, I) and float32 bias (I,) of the logits; the bias of a padded item is -inf.

        So a padded item has probability 0, no gradient, and is never recommended.
        """
        padding = self.architecture.padded_items - self.architecture.items
        mask = np.zeros(self.architecture.padded_items, np.float32)
        mask[self.architecture.items :] = -np.inf
        kernel, bias = self._decoder_items
        return tf.convert_to_tensor(kernel), bias + mask if padding else tf.convert_to_tensor(bias)


def sample(mean: tf.Tensor, log_variance: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Return a (B, Z) sample of the latent distribution: mean + standard deviation * noise.

    The reparameterisation trick of section 2.2.1 (Kingma and Welling 2014, arXiv:1312.6114).

    Args:
        mean: (B, Z) float32.
        log_variance: (B, Z) float32.
        noise: (B, Z) float32, standard normal.
    """
    return mean + tf.exp(log_variance / 2) * noise


def kl_divergence(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """Return each user's KL divergence from the standard normal distribution in nats, (B,) float32.

    Args:
        mean: (B, Z) float32.
        log_variance: (B, Z) float32.
    """
    return 0.5 * tf.reduce_sum(tf.exp(log_variance) + tf.square(mean) - 1 - log_variance, axis=1)
