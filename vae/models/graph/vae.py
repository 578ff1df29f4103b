"""The models: Mult-VAE (Liang et al. 2018, arXiv:1802.05814) and RecVAE (arXiv:1912.11160).

The encoder maps a user's history to a distribution over the latent space, the decoder maps a sample
of it to a distribution over all items::

    I -> encoder -> 2 x Z (mean, log variance) -> Z -> decoder -> I logits

Encoder and decoder are chosen independently of each other. Mult-VAE has the ``tanh`` encoder and
the ``deep`` decoder, one hidden layer each, and RecVAE the ``dense`` encoder, with five hidden
layers, and the ``linear`` decoder, without any (Shenbin et al. 2020, section "Model architecture").
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from vae.config import Architecture
from vae.models.graph.item_shard import ItemShard
from vae.models.graph.session import uncompiled
from vae.models.graph.sparse_input import SparseBatch

_NORM_EPSILON = 0.1
"""Added to the variance of a layer normalisation, as in the code of Shenbin et al."""


class Layer(NamedTuple):
    """Resource variables of a dense layer: kernel (inputs, outputs) and bias (outputs,)."""

    kernel: tf.Variable
    bias: tf.Variable

    def __call__(self, inputs: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
        """Return the (B, outputs) float32 affine map of (B, inputs) float32 rows."""
        product = tf.matmul(tf.cast(inputs, dtype), tf.cast(self.kernel, dtype))
        return tf.cast(product, tf.float32) + self.bias


class Norm(NamedTuple):
    """Resource variables of a layer normalisation (Ba et al. 2016, arXiv:1607.06450): each (H,)."""

    gain: tf.Variable
    bias: tf.Variable

    def swish(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the rows' swish, normalised by their means and variances, (B, H) float32."""
        return _normalised_swish(inputs) * self.gain + self.bias


class Encoder:
    """The encoder's variables, which are added to the current graph, and its layers.

    Args:
        seed: of the initial weights of the whole model.
        shard: of the items, whose rows the first kernel has.
    """

    def __init__(
        self, architecture: Architecture, seed: int, shard: ItemShard, trainable: bool = True
    ) -> None:
        self._shard = shard
        self._activation = getattr(tf.nn, architecture.activation)
        self.layers = _layers(architecture, "encoder/", seed, shard, trainable=trainable)
        hidden_layers = range(1, len(self.layers)) if architecture.encoder == "dense" else ()
        self.norms = [
            _norm(f"encoder/norm_{number}", architecture.hidden_dim, trainable)
            for number in hidden_layers
        ]

    @property
    def variables(self) -> list[tf.Variable]:
        """All weights, input side first."""
        return [variable for part in (*self.layers, *self.norms) for variable in part]

    def encode(
        self,
        histories: SparseBatch,
        keep_probability: float = 1.0,
        dtype: tf.DType = tf.float32,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the latent distribution of each user.

        The input row is L2-normalised: 1 / sqrt(n) at each of the user's n items.

        Args:
            histories: items of B users; in training those that survived dropout, while ``counts``
                are those before dropout.
            keep_probability: fraction of the input that survives dropout; the rest is scaled up.
            dtype: of the products of dense layers.

        Returns:
            Mean and log variance, each (B, Z) float32.
        """
        lengths = tf.maximum(tf.cast(histories.lengths, tf.float32), 1.0)
        scale = (tf.math.rsqrt(lengths) / keep_probability)[:, tf.newaxis]
        kernel, bias = self.layers[0]
        affine = scale * self._shard.sum(self._shard.own(histories).sum(kernel)) + bias
        hidden = self._dense_hidden(affine, dtype) if self.norms else self._activation(affine)
        mean, log_variance = tf.split(self.layers[-1](hidden, dtype), 2, axis=1)
        return mean, log_variance

    def _dense_hidden(self, affine: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        """Return the last hidden layer of RecVAE (section "Model architecture").

        With the earlier hidden layers h_j, h_k = norm(swish(W_k h_{k-1} + b_k + sum of h_j)). The
        (B, H) float32 ``affine`` is the first one before its activation.
        """
        hidden = self.norms[0].swish(affine)
        earlier = hidden
        for layer, norm in zip(self.layers[1:-1], self.norms[1:], strict=True):
            hidden = norm.swish(layer(hidden, dtype) + earlier)
            earlier += hidden
        return hidden


class VAE:
    """The model's variables, which are added to the current graph, and its layers.

    Args:
        item_dtype: dtype of the last kernel, half of all weights; float32 for training.
        shard: of the items whose weights the model has; None for all of them. Its methods take and
            return what concerns all items nevertheless.
    """

    def __init__(
        self,
        architecture: Architecture,
        seed: int,
        item_dtype: tf.DType = tf.float32,
        shard: ItemShard | None = None,
    ) -> None:
        self.architecture = architecture
        self.shard = shard or ItemShard(architecture.padded_items)
        self._seed = seed
        self._activation = getattr(tf.nn, architecture.activation)
        self._encoder = Encoder(architecture, seed, self.shard)
        self._decoder = _layers(architecture, "decoder/", seed, self.shard, item_dtype)
        self.encode = self._encoder.encode

    @property
    def layers(self) -> list[Layer]:
        """All dense layers, input side first."""
        return self._encoder.layers + self._decoder

    @property
    def variables(self) -> list[tf.Variable]:
        """All weights, input side first."""
        return self._encoder.variables + [v for layer in self._decoder for v in layer]

    def copy_encoder(self) -> tuple[Encoder, tf.Operation]:
        """Add a copy of the encoder, ``prior/encoder``, that no optimizer changes.

        Returns:
            The copy, initially equal to the encoder, and the operation that makes it equal again.
        """
        with tf.variable_scope("prior"):
            copy = Encoder(self.architecture, self._seed, self.shard, trainable=False)
        pairs = zip(copy.variables, self._encoder.variables, strict=True)
        return copy, tf.group([old.assign(new) for old, new in pairs])

    def decode_hidden(self, latent: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
        """Return the (B, D) float32 inputs of the item layer for (B, Z) float32 samples."""
        hidden = latent
        for layer in self._decoder[:-1]:  # none in a linear decoder
            hidden = self._activation(layer(hidden, dtype))
        return hidden

    @property
    def item_layer(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Kernel (D, I) and float32 bias (I,) of the shard's logits; -inf for a padded item.

        So a padded item has probability 0, no gradient, and is never recommended.
        """
        kernel, bias = map(tf.convert_to_tensor, self._decoder[-1])
        of_all = np.zeros(self.architecture.padded_items, np.float32)
        of_all[self.architecture.items :] = -np.inf
        mask = of_all[self.shard.range]
        return kernel, bias + mask if mask.any() else bias


def _layers(
    architecture: Architecture,
    part: str,
    seed: int,
    shard: ItemShard,
    item_dtype: tf.DType = tf.float32,
    trainable: bool = True,
) -> list[Layer]:
    """Add the variables of the dense layers whose names start with ``part``.

    Kernels are initialised uniformly as by Glorot and Bengio (2010, "Understanding the difficulty
    of training deep feedforward neural networks", equation 16), biases from a truncated normal
    distribution with standard deviation 0.001, as in the code of Liang et al. The seeds of a layer
    depend on its position in the whole model alone.
    """
    shapes = architecture.shapes
    seeds = np.random.SeedSequence(seed).generate_state(2 * len(shapes)).reshape(-1, 2).tolist()
    layers = []
    for (name, shape), (kernel_seed, bias_seed) in zip(shapes.items(), seeds, strict=True):
        if not name.startswith(part):
            continue
        dtype = item_dtype if name == "decoder/items" else tf.float32
        glorot = tf.glorot_uniform_initializer(kernel_seed)
        normal = tf.truncated_normal_initializer(stddev=0.001, seed=bias_seed)
        # Compiled, the initial weights would come from another generator.
        with tf.variable_scope(name, use_resource=True), uncompiled():
            kernel = shard.variable("kernel", shape, dtype, glorot, trainable)
            bias = shard.variable("bias", shape[1:], tf.float32, normal, trainable)
        layers.append(Layer(kernel, bias))
    return layers


def _norm(name: str, units: int, trainable: bool) -> Norm:
    """Add the variables of a layer normalisation, which is initially without gain and bias."""
    with tf.variable_scope(name, use_resource=True):
        ones, zeros = tf.ones_initializer(), tf.zeros_initializer()
        return Norm(
            tf.get_variable("gain", [units], initializer=ones, trainable=trainable),
            tf.get_variable("bias", [units], initializer=zeros, trainable=trainable),
        )


@tf.custom_gradient  # type: ignore[misc]
def _normalised_swish(inputs: tf.Tensor) -> tuple[tf.Tensor, object]:
    """Return swish(inputs) with mean 0 and variance 1 in each row, (B, H) float32.

    swish(x) = x sigmoid(x) (Ramachandran et al. 2017, arXiv:1710.05941). With n the result and d
    the gradient by it, that by the swish is (d - mean(d) - n mean(d n)) / standard deviation. Each
    operation is a pass over (B, H); TensorFlow's own gradient makes twice as many.
    """
    sigmoid = tf.sigmoid(inputs)
    swish = inputs * sigmoid
    centred = swish - tf.reduce_mean(swish, axis=1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=1, keepdims=True)
    scale = tf.math.rsqrt(variance + _NORM_EPSILON)
    normalised = centred * scale

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        mean = tf.reduce_mean(upstream, axis=1, keepdims=True)
        projection = tf.reduce_mean(upstream * normalised, axis=1, keepdims=True)
        by_swish = (upstream - mean - normalised * projection) * scale
        return by_swish * (sigmoid + swish * (1 - sigmoid))

    return normalised, gradient
