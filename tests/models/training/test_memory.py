"""A model that cannot fit into memory is refused before it is built."""

import dataclasses
from contextlib import nullcontext

import pytest
import tensorflow.compat.v1 as tf

from vae.config import Architecture, Evaluation
from vae.errors import UserError
from vae.models.graph.vae import VAE
from vae.models.training.memory import (
    check_ease_memory,
    check_host,
    check_memory,
    needed_bytes,
)
from vae.utils.distributed import Workers

SMALL = Architecture(items=9, hidden_dim=3, latent_dim=2)
HUGE = Architecture(items=1200, hidden_dim=2**20)


def bytes_of(variables):
    return [variable.shape.num_elements() * 4 for variable in variables]


def test_what_a_process_must_hold_at_least():
    with tf.Graph().as_default():
        vae = VAE(SMALL, seed=0)
        weights = sum(bytes_of(vae.variables))
        gradient = max(sum(bytes_of(layer)) for layer in vae.layers)
    for train, loaded, gpu, expected in (
        (True, False, False, 3 * weights + gradient),
        (True, True, False, 3 * weights + gradient),
        (False, True, False, 2 * weights),
        (False, False, False, weights),
        (True, False, True, weights),
        (False, True, True, weights),
        (False, False, True, 0),
    ):
        assert needed_bytes(SMALL, train, loaded, gpu) == expected


def test_the_composite_prior_takes_another_encoder_in_training():
    dense = Architecture(items=9, hidden_dim=3, latent_dim=2, encoder="dense", decoder="linear")
    recvae = dataclasses.replace(dense, prior="composite")
    encoder = 4 * ((16 + 1) * 3 + 4 * (3 + 1) * 3 + (3 + 1) * 4 + 5 * 2 * 3)
    extra = [needed_bytes(recvae, train, True, False) - needed_bytes(dense, train, True, False)
             for train in (True, False)]  # fmt: skip
    assert extra == [encoder, 0]


def test_each_worker_needs_items_of_its_own():
    workers = Workers()
    workers.size = 2
    check_host(SMALL, True, False, workers, divided=True)
    workers.size = 3
    with pytest.raises(UserError, match="--parallel items: 9 items are too few for 3 workers"):
        check_host(SMALL, True, False, workers, divided=True)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_model_is_refused_where_a_byte_is_missing(train, gpu, workers):
    needed = workers * needed_bytes(HUGE, train, True, gpu)
    check_memory(HUGE, train, True, gpu, needed, workers)
    with pytest.raises(UserError) as caught:
        check_memory(HUGE, train, True, gpu, needed - 1, workers)
    sentence = str(caught.value)
    assert sentence.startswith("--hidden_dim 1048576 and --latent_dim 200: with 1,200 items")
    assert sentence.count(f"{needed / 1e9:.1f} GB") == 2
    assert ("for 3 workers" in sentence) == (workers == 3)
    divided = max(workers, 2)
    shard = needed_bytes(HUGE, train, True, gpu, shards=divided)
    # One worker loads the whole model after training; two that divide the items train it in less.
    hint = f", or use --parallel items: on {divided} workers, {workers} per host, "
    hint += f"{shard / 1e9:.1f} GB each"
    hint = hint if train and not gpu else ""
    assert sentence.endswith(f"lower --hidden_dim or --latent_dim{hint}.")


def test_a_kernel_that_tensorflow_cannot_train_is_refused_however_much_memory_there_is():
    def check(items, hidden_dim, train=True):
        check_memory(Architecture(items, hidden_dim), train, True, False, available=1 << 60)

    check(2048, 2**20)
    check(3_579_136, 600)
    check(2049, 2**20, train=False)
    with pytest.raises(UserError, match=r"1048576: .* 2,155,872,256 elements.* to 1044495\.$"):
        check(2049, 2**20)
    with pytest.raises(UserError, match=r"600: with 3,579,200 items .* to 599\.$"):
        check(3_579_200, 600)


@pytest.mark.parametrize(
    ("flags", "rank", "sentence"),
    [
        ({"baselines": "popularity,ease"}, 0, r"--baselines popularity,ease: .* 1000\.0 GB"),
        ({"baselines": "ease"}, 1, None),  # rank 0 alone fits the baselines
        (
            {"blend": "ease"},
            1,
            r"--blend ease: with 500,000 training users and 1,000,000 items .* 5000\.0 GB "
            r"of memory, 1000\.8 GB with no more than the 100 largest weights",
        ),
    ],
)
def test_a_catalogue_whose_item_weights_do_not_fit_is_refused_with_their_size(
    flags, rank, sentence
):
    workers = Workers()
    workers.rank, workers.local_size = rank, 2
    check_ease_memory(100, 100, Evaluation(**flags), workers)
    refused = pytest.raises(UserError, match=sentence) if sentence else nullcontext()
    with refused:
        check_ease_memory(500_000, 1_000_000, Evaluation(**flags), workers)
