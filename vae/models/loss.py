"""The training objective (Liang et al. 2018, section 2.2): a multinomial likelihood and a KL term.

The last layer and its likelihood are one function with its own gradient, because their logits,
(B, I), are by far the largest tensor of the model, and every needless pass over them shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow.compat.v1 as tf

from vae.models.histories import Histories
from vae.models.slices import SLICE_USERS, SliceResult, map_slices


def multinomial_nll(
    hidden: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    histories: Histories,
    weight: tf.Tensor,
    max_users: int,
    slice_users: int = SLICE_USERS,
) -> tf.Tensor:
    """Weighted sum over users of -sum over the user's items of log_softmax(hidden @ kernel + bias).

    The gradient is computed together with the value, slice of users by slice of users, so that no
    more than one slice's logits exist at a time.

    Args:
        hidden: (B, H) float32, the decoder's hidden layer.
        kernel: (H, I) float32.
        bias: (I,) float32; -inf masks a column.
        histories: the users' items, each once.
        weight: scalar float32 factor, usually 1 / users of the global batch.
        max_users: the largest B there will be.
        slice_users: users whose logits are held at a time.

    Returns:
        Scalar float32, in nats times ``weight``. Differentiable once, by ``hidden``, ``kernel`` and
        ``bias``.
    """

    @tf.custom_gradient  # type: ignore[misc]
    def nll(hidden: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, object]:
        def body(part: Histories, per_user: Sequence[tf.Tensor]) -> SliceResult:
            return _nll_and_gradients(per_user[0], kernel, bias, part, weight)

        (value, by_affine), (by_hidden,) = map_slices(
            body, histories, [hidden], max_users, slice_users
        )

        def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
            by_kernel, by_bias = by_affine[:-1], by_affine[-1]
            return [upstream * by_hidden, upstream * by_kernel, upstream * by_bias]

        return value, gradient

    return nll(hidden, kernel, bias)


def _nll_and_gradients(
    hidden: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, histories: Histories, weight: tf.Tensor
) -> SliceResult:
    """The likelihood's value and gradients for one slice of users.

    With p the softmax of the logits and a user's n items, the logits' gradient is n p - 1 at the
    items and n p elsewhere: n times (p - x), with x = 1 / n at the items. The factor n is applied
    to the (B, H) side of the matmuls, which saves a pass over (B, I).

    Returns:
        Sums: the value, and the gradient by kernel and bias as one (H + 1, I) tensor. Rows: the
        gradient by ``hidden``.
    """
    counts = tf.cast(histories.counts, tf.float32)
    logits = tf.nn.bias_add(tf.matmul(hidden, kernel), bias)
    probabilities = tf.nn.softmax(logits)
    log_normaliser = _log_normaliser(logits, probabilities)
    value = tf.reduce_sum(counts * log_normaliser) - tf.reduce_sum(histories.pick(logits))
    # Only then is nobody left who reads the probabilities, and the sum can be made in place.
    with tf.control_dependencies([value]):
        difference = histories.add_to(probabilities, histories.spread(-1 / counts))
    factor = (weight * counts)[:, tf.newaxis]
    by_hidden = factor * tf.matmul(difference, kernel, transpose_b=True)
    # A column of ones beside the hidden layer makes the bias's gradient the matmul's last row: far
    # cheaper than a sum over users.
    by_affine = tf.matmul(
        tf.concat([factor * hidden, factor], axis=1), difference, transpose_a=True
    )
    by_affine.set_shape([hidden.shape[1] + 1, kernel.shape[1]])
    return SliceResult([weight * value, by_affine], [by_hidden])


def _log_normaliser(logits: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    """(B,) log of the softmax's denominator, from the likeliest item of each user.

    The largest probability is at least 1 / I, so its logarithm is always exact.
    """
    return tf.reduce_max(logits, axis=1) - tf.log(tf.reduce_max(probabilities, axis=1))


def kl_weight(step: tf.Tensor, total_anneal_steps: int, anneal_cap: float) -> tf.Tensor:
    """Weight beta of the KL term (section 2.2.2): step / total_anneal_steps, at most the cap."""
    return tf.minimum(anneal_cap, tf.cast(step, tf.float32) / total_anneal_steps)


def l2_penalty(kernels: Sequence[tf.Variable]) -> tf.Tensor:
    """Sum of the squared Frobenius norms of the kernels, scalar float32."""
    return tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in kernels])
