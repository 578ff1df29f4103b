"""The graph of one optimizer step: loss, gradients and update."""

from __future__ import annotations

from typing import Any

import tensorflow.compat.v1 as tf

from vae.config import Objective, Training
from vae.load.batches import Batch
from vae.models.graph.latent import composite_kl_divergence, kl_divergence, sample
from vae.models.graph.loss import multinomial_nll
from vae.models.graph.precision import FLOAT32, Precision
from vae.models.graph.session import uncompiled
from vae.models.graph.sparse_input import SparseBatch
from vae.models.graph.vae import VAE
from vae.utils.distributed import Workers


class TrainingStep:
    """Optimizer step of one worker on its shard of a global batch.

    Each worker sums over its own users and divides by the number of users of the global batch, so
    the sum of the workers' gradients is the gradient of the global batch's mean, whatever the sizes
    of the shards. The optimizer is Adam (Kingma and Ba 2015, arXiv:1412.6980).

    Args:
        seed: of the noise.
        workers: they share the batch, and the sums and gradients are reduced over them. A worker
            that has a shard of the model's items is alone with all users.
        max_users: maximum number of users in a shard.
        precision: of the products of dense layers, or of the whole graph.

    Attributes:
        global_step: int64 variable, completed steps but for those that the optimizer skipped
            because of an overflow; the weight of the KL term is a function of it.
        global_step_before: scalar int64, ``global_step`` before this step.
        totals: (3,) float32, sums over the global batch's users of the objective, the negative
            log-likelihood and the KL divergence, in nats.
        scalars: values for the epoch's log line: ``kl_weight``, if it is the same for all users,
            and ``loss_scale`` if there is one.
        requests: (2,) float32, number of workers that requested to stop and to save.
        update: operation that applies the step.
        end_of_epoch: operation to run after the last step of an epoch; it renews the composite
            prior.
    """

    def __init__(
        self,
        vae: VAE,
        objective: Objective,
        training: Training,
        seed: int,
        workers: Workers,
        max_users: int,
        precision: Precision = FLOAT32,
    ) -> None:
        self._inputs = Batch(
            items=tf.placeholder(tf.int64, [None], "items"),
            counts=tf.placeholder(tf.int32, [None], "counts"),
            keep_mask=tf.placeholder(tf.bool, [None], "keep_mask"),
            first_user=tf.placeholder(tf.int32, [], "first_user"),
            global_users=tf.placeholder(tf.int32, [], "global_users"),
            step=tf.placeholder(tf.int64, [], "step"),
        )
        self._requests = tf.placeholder(tf.float32, [2], "requests")
        self.precision = precision
        self.end_of_epoch: tf.Operation = tf.no_op()
        self.global_step = tf.train.get_or_create_global_step()
        self.global_step_before = tf.identity(self.global_step)
        self.scalars: dict[str, tf.Tensor] = {}
        # Float16 gradients may underflow. A step whose gradients overflow is skipped: it changes
        # neither weights nor slots nor global step, and halves the scale. After 2,000 steps without
        # one the scale is doubled.
        scaling = tf.mixed_precision.DynamicLossScale() if precision.rewritten else None
        if scaling:
            self.scalars["loss_scale"] = scaling()

        global_users = tf.cast(self._inputs.global_users, tf.float32)
        likelihood_loss, divergences = self._terms(
            vae, objective.dropout, seed, global_users, max_users
        )
        divergence = tf.reduce_sum(divergences) / global_users
        loss = likelihood_loss
        if objective.kl_per_item:
            # Shenbin et al. 2020, section "Rescaling KL divergence".
            weights = objective.kl_per_item * tf.cast(self._inputs.counts, tf.float32)
            loss += tf.reduce_sum(weights * divergences) / global_users
        else:
            # Annealing (Liang et al. 2018, section 2.2.2): without the cap the weight rises to 1.
            annealed = tf.cast(self.global_step_before, tf.float32) / objective.total_anneal_steps
            self.scalars["kl_weight"] = tf.minimum(objective.anneal_cap, annealed)
            loss += self.scalars["kl_weight"] * divergence
        if objective.lam:
            squares = [tf.reduce_sum(tf.square(layer.kernel)) for layer in vae.layers]
            first, *others, last = squares
            penalty = tf.add_n([vae.shard.sum(first), *others, vae.shard.sum(last)])
            loss += objective.lam / workers.size * penalty
        totals = global_users * tf.stack([loss, likelihood_loss, divergence])
        sums = workers.allreduce_tensor(tf.concat([totals, self._requests], axis=0))
        self.totals = sums[:3]
        self.requests = vae.shard.workers.allreduce_tensor(sums[3:])

        optimizer = tf.train.AdamOptimizer(training.lr, training.beta1, training.beta2)
        optimizer = workers.optimizer(optimizer)
        if scaling:  # around Horovod's optimizer: all ranks see the same sums, and skip the same
            rewrite = tf.mixed_precision.enable_mixed_precision_graph_rewrite
            optimizer = rewrite(optimizer, scaling)
        gradients = optimizer.compute_gradients(loss)
        if scaling:
            gradients = vae.shard.share_overflow(gradients)
        self.update = optimizer.apply_gradients(gradients, self.global_step)

    def _terms(
        self,
        vae: VAE,
        dropout: float,
        seed: int,
        global_users: tf.Tensor,
        max_users: int,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the scalar negative log-likelihood per global user, and (B,) KL divergences."""
        users = SparseBatch.of(self._inputs.items, self._inputs.counts)
        dtype = self.precision.dtype
        posterior = vae.encode(users.keep(self._inputs.keep_mask), 1 - dropout, dtype)
        noise = self._noise(seed, vae.architecture.latent_dim)
        latent = sample(*posterior, noise)
        likelihood_loss = multinomial_nll(
            vae.decode_hidden(latent, dtype),
            *vae.item_layer,
            vae.shard.own(users),
            1 / global_users,
            max_users,
            dtype,
            self.scalars.get("loss_scale"),
            vae.shard,
        )
        if vae.architecture.prior == "normal":
            return likelihood_loss, kl_divergence(*posterior)
        old_encoder, self.end_of_epoch = vae.copy_encoder()
        old_posterior = old_encoder.encode(users, dtype=dtype)
        _, log_variance = posterior
        divergences = composite_kl_divergence(latent, noise, log_variance, old_posterior)
        return likelihood_loss, divergences

    def _noise(self, seed: int, latent_dim: int) -> tf.Tensor:
        """Return (B, Z) float32 standard normal noise.

        It is a function of the seed, the step and the user's position in the global batch, by the
        counter-based generator Philox (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1,
        2, 3"). Each worker draws the noise of the global batch and takes its own rows, so a user's
        noise does not depend on the number of workers.
        """
        inputs = self._inputs
        # XLA has another generator, and by default a GPU may have one too.
        with uncompiled():
            noise = tf.random.stateless_normal(
                [inputs.global_users, latent_dim], tf.stack([seed, inputs.step]), alg="philox"
            )
        return noise[inputs.first_user : inputs.first_user + tf.size(inputs.counts)]

    def feed(self, batch: Batch, stop: bool = False, save: bool = False) -> dict[tf.Tensor, Any]:
        """Return the feed for one worker's shard of a batch and its requests to all workers."""
        values = {getattr(self._inputs, name): value for name, value in vars(batch).items()}
        return values | {self._requests: [stop, save]}
