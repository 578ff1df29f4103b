"""The models: Mult-VAE (Liang et al. 2018, arXiv:1802.05814) and RecVAE (arXiv:1912.11160).

The encoder maps a user's history to a distribution over the latent space, the decoder maps a sample
of it to a distribution over all items::

    I -> encoder -> 2 x Z (mean, log variance) -> Z -> decoder -> I logits

Encoder and decoder are chosen independently of each other. Mult-VAE has the ``tanh`` encoder and
the ``deep`` decoder, one hidden layer each, and RecVAE the ``dense`` encoder, with five hidden
layers, and the ``linear`` decoder, without any (Shenbin et al. 2020, section "Model architecture").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from vae.config import DENSE_LAYERS, Architecture
from vae.models.graph.session import uncompiled
from vae.models.graph.sparse_input import SparseBatch

_NORM_EPSILON = 0.1
"""Added to the variance of a layer normalisation, as in the code of Shenbin et al."""


class Layer(NamedTuple):
    """Resource variables of a dense layer: kernel (inputs, outputs) and bias (outputs,)."""

    kernel: tf.Variable
    bias: tf.Variable

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the (B, outputs) float32 affine map of (B, inputs) float32 rows."""
        return tf.matmul(inputs, self.kernel) + self.bias


class Norm(NamedTuple):
    """Resource variables of a layer normalisation (Ba et al. 2016, arXiv:1607.06450): each (H,)."""

    gain: tf.Variable
    bias: tf.Variable

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return (B, H) float32 rows with mean and variance of ``inputs`` normalised per row."""
        mean, variance = tf.nn.moments(inputs, axes=[1], keepdims=True)
        return tf.nn.batch_normalization(
            inputs, mean, variance, self.bias, self.gain, _NORM_EPSILON
        )


class Encoder:
    """The encoder's variables, which are added to the current graph, and its layers.

    Args:
        architecture: shapes and kind.
        seeds: of the initial kernel and bias of each layer, by its name.
        trainable: whether an optimizer changes the variables.
    """

    def __init__(
        self,
        architecture: Architecture,
        seeds: Mapping[str, tuple[int, int]],
        trainable: bool = True,
    ) -> None:
        self._activation = getattr(tf.nn, architecture.activation)
        names = [name for name in architecture.shapes if name.startswith("encoder/")]
        self.layers = tuple(
            _layer(name, *architecture.shapes[name], *seeds[name], trainable=trainable)
            for name in names
        )
        dense = architecture.encoder == "dense"
        numbers = range(1, DENSE_LAYERS + 1) if dense else range(0)
        self.norms = tuple(
            _norm(f"encoder/norm_{number}", architecture.hidden_dim, trainable)
            for number in numbers
        )

    @property
    def variables(self) -> list[tf.Variable]:
        """All weights, input side first."""
        return [variable for part in (*self.layers, *self.norms) for variable in part]

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
        kernel, bias = self.layers[0]
        affine = histories.weighted_sum(scale, kernel) + bias
        hidden = self._dense_hidden(affine) if self.norms else self._activation(affine)
        mean, log_variance = tf.split(self.layers[-1](hidden), 2, axis=1)
        return mean, log_variance

    def _dense_hidden(self, affine: tf.Tensor) -> tf.Tensor:
        """Return the last hidden layer of RecVAE (section "Model architecture").

        With the earlier hidden layers h_j, h_k = norm(swish(W_k h_{k-1} + b_k + sum of h_j)).

        Args:
            affine: (B, H) float32, the first layer before its activation.
        """
        hidden = self.norms[0](_swish(affine))
        earlier = hidden
        for layer, norm in zip(self.layers[1:-1], self.norms[1:], strict=True):
            hidden = norm(_swish(layer(hidden) + earlier))
            earlier += hidden
        return hidden


class VAE:
    """The model's variables, which are added to the current graph, and its layers.

    Kernels are initialised uniformly as by Glorot and Bengio (2010, "Understanding the difficulty
    of training deep feedforward neural networks", equation 16), biases from a truncated normal
    distribution with standard deviation 0.001, as in the code of Liang et al.

    Args:
        architecture: shapes and layers.
        seed: of the initial weights.
        item_dtype: dtype of the last kernel, half of all weights; float32 for training.
    """

    def __init__(
        self, architecture: Architecture, seed: int, item_dtype: tf.DType = tf.float32
    ) -> None:
        self.architecture = architecture
        shapes = architecture.shapes
        numbers = iter(np.random.SeedSequence(seed).generate_state(2 * len(shapes)).tolist())
        self._seeds = {name: (next(numbers), next(numbers)) for name in shapes}
        self._activation = getattr(tf.nn, architecture.activation)
        self._encoder = Encoder(architecture, self._seeds)
        self._decoder_hidden = (
            self._new_layer("decoder/hidden") if architecture.decoder == "deep" else None
        )
        self._decoder_items = self._new_layer("decoder/items", item_dtype)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All dense layers, input side first."""
        hidden = [self._decoder_hidden] if self._decoder_hidden else []
        return (*self._encoder.layers, *hidden, self._decoder_items)

    @property
    def variables(self) -> list[tf.Variable]:
        """All weights, input side first."""
        decoder = self.layers[len(self._encoder.layers) :]
        return self._encoder.variables + [variable for layer in decoder for variable in layer]

    def encode(
        self, histories: SparseBatch, keep_probability: float = 1.0
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the latent distribution of each user, as ``Encoder.encode``."""
        return self._encoder.encode(histories, keep_probability)

    def copy_encoder(self) -> tuple[Encoder, tf.Operation]:
        """Add a copy of the encoder, ``prior/encoder``, that no optimizer changes.

        Returns:
            The copy, initially equal to the encoder, and the operation that makes it equal again.
        """
        with tf.variable_scope("prior"):
            copy = Encoder(self.architecture, self._seeds, trainable=False)
        pairs = zip(copy.variables, self._encoder.variables, strict=True)
        return copy, tf.group([old.assign(new) for old, new in pairs])

    def decode_hidden(self, latent: tf.Tensor) -> tf.Tensor:
        """Return the (B, D) float32 inputs of the item layer.

        Args:
            latent: (B, Z) float32 latent representations.
        """
        if self._decoder_hidden is None:
            return latent
        return self._activation(self._decoder_hidden(latent))

    @property
    def item_layer(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Kernel (D, I) and float32 bias (I,) of the logits; the bias of a padded item is -inf.

        So a padded item has probability 0, no gradient, and is never recommended.
        """
        padding = self.architecture.padded_items - self.architecture.items
        mask = np.zeros(self.architecture.padded_items, np.float32)
        mask[self.architecture.items :] = -np.inf
        kernel, bias = self._decoder_items
        return tf.convert_to_tensor(kernel), bias + mask if padding else tf.convert_to_tensor(bias)

    def _new_layer(self, name: str, dtype: tf.DType = tf.float32) -> Layer:
        return _layer(name, *self.architecture.shapes[name], *self._seeds[name], dtype)


def _layer(
    name: str,
    inputs: int,
    outputs: int,
    kernel_seed: int,
    bias_seed: int,
    dtype: tf.DType = tf.float32,
    trainable: bool = True,
) -> Layer:
    """Add the variables of a dense layer."""
    # Compiled, the initial weights would come from another generator.
    with tf.variable_scope(name, use_resource=True), uncompiled():
        return Layer(
            tf.get_variable(
                "kernel",
                [inputs, outputs],
                dtype,
                initializer=tf.glorot_uniform_initializer(kernel_seed),
                trainable=trainable,
            ),
            tf.get_variable(
                "bias",
                [outputs],
                initializer=tf.truncated_normal_initializer(stddev=0.001, seed=bias_seed),
                trainable=trainable,
            ),
        )


def _norm(name: str, units: int, trainable: bool) -> Norm:
    """Add the variables of a layer normalisation, which is initially without gain and bias."""
    with tf.variable_scope(name, use_resource=True):
        ones, zeros = tf.ones_initializer(), tf.zeros_initializer()
        return Norm(
            tf.get_variable("gain", [units], initializer=ones, trainable=trainable),
            tf.get_variable("bias", [units], initializer=zeros, trainable=trainable),
        )


def _swish(inputs: tf.Tensor) -> tf.Tensor:
    """Return x * sigmoid(x) (Ramachandran et al. 2017, arXiv:1710.05941)."""
    return inputs * tf.sigmoid(inputs)
