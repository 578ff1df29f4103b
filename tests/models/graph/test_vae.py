"""The layers against plain float64 NumPy, with every activation."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from scipy.sparse import csr_matrix

from vae.config import ACTIVATIONS, Architecture
from vae.models.graph.latent import kl_divergence, sample
from vae.models.graph.sparse_input import feed, placeholders
from vae.models.graph.vae import VAE

HISTORIES = np.uint8([[1, 0, 1, 0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 0, 0, 0, 0], [0] * 9])

# Constants of SELU: Klambauer et al. 2017 (arXiv:1706.02515), equation 14.
REFERENCES = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_encoder_and_decoder_compute_the_activation_that_is_named(activation):
    users, f = len(HISTORIES), REFERENCES[activation]
    with tf.Graph().as_default(), tf.Session() as session:
        vae = VAE(Architecture(9, 6, 4, activation), seed=1)
        histories = placeholders()
        latent = np.random.default_rng(0).normal(size=(users, 4)).astype(np.float32)
        fetches = [vae.encode(histories), vae.decode_hidden(tf.constant(latent))]
        session.run(tf.global_variables_initializer())
        fed = feed(histories, csr_matrix(HISTORIES))
        (mean, log_variance), hidden = session.run(fetches, fed)
        layers = [[v.astype(np.float64) for v in layer] for layer in session.run(vae.layers)]
    lengths = np.maximum(HISTORIES.sum(axis=1, keepdims=True), 1)
    (kernel, bias), (latent_kernel, latent_bias), (decoder_kernel, decoder_bias), _ = layers
    encoded = f(HISTORIES / np.sqrt(lengths) @ kernel[:9] + bias) @ latent_kernel + latent_bias
    np.testing.assert_allclose(np.hstack([mean, log_variance]), encoded, atol=1e-6)
    decoded = f(latent.astype(np.float64) @ decoder_kernel + decoder_bias)
    np.testing.assert_allclose(hidden, decoded, atol=1e-6)


def test_a_sample_has_the_mean_and_variance_and_the_divergence_is_that_of_normal_distributions():
    mean, log_variance, noise = np.float32([[[0, 2]], [[0, np.log(4)]], [[0.5, -1]]])
    with tf.Session() as session:
        sampled, divergence = session.run(
            [sample(mean, log_variance, noise), kl_divergence(mean, log_variance)]
        )
    np.testing.assert_allclose(sampled, [[0.5, 0]], atol=1e-6)
    # 0 for the first dimension, a standard normal; for the second ln(1/2) + (4 + 2 ** 2) / 2 - 1/2.
    np.testing.assert_allclose(divergence, [np.log(0.5) + 4 - 0.5], rtol=1e-6)
