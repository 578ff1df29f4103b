"""Training batches: every user once, the same whatever the number of workers or the first batch."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from vae.load.batches import TrainingBatches

SEARCH = settings(max_examples=50, deadline=None)
SEEDS = st.integers(0, 2**31 - 1)
BATCH_SIZES = st.integers(1, 10) | st.integers(1, 40)
DROPOUTS = st.sampled_from([0.0, 0.3, 0.5, 0.9])


def random_matrix(users, items, density, seed):
    dense = np.random.default_rng(seed).random((users, items)) < density
    return csr_matrix(dense, dtype=np.uint8)


TRAIN = st.builds(
    random_matrix,
    users=st.integers(1, 30),
    items=st.integers(1, 12),
    density=st.sampled_from([0.1, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
"""Users with any items, some with none."""


@st.composite
def tellable_users(draw):
    """Users who can be told by their items: the digits of a user's number, plus one for all."""
    users = draw(st.integers(1, 30))
    dense = np.ones((users, 6), np.uint8)
    dense[:, :5] = np.arange(users)[:, None] >> np.arange(5) & 1
    return csr_matrix(dense)


def users_of(batch):
    """Numbers of the tellable users in a batch."""
    histories = np.split(batch.items, np.cumsum(batch.counts)[:-1])
    return [sum(1 << item for item in history[:-1].tolist()) for history in histories]


def plain(batch):
    """A batch as values that compare."""
    return (
        batch.items.tolist(),
        batch.counts.tolist(),
        batch.keep_mask.tolist(),
        batch.first_user,
        batch.global_users,
        batch.step,
    )


def epoch(batches, number=0, first_batch=0):
    return [plain(batch) for batch in batches.epoch(number, first_batch)]


@SEARCH
@given(tellable_users(), BATCH_SIZES, SEEDS, st.integers(0, 5))
def test_an_epoch_has_every_user_once_the_last_partial_batch_included(train, size, seed, number):
    total = train.shape[0]
    batches = TrainingBatches(train, size, seed, 0.5)
    seen = [users_of(batch) for batch in batches.epoch(number)]
    assert sorted(user for users in seen for user in users) == list(range(total))
    assert len(seen) == batches.steps_per_epoch == math.ceil(total / size)
    lengths = list(map(len, seen))
    assert lengths[:-1] == [size] * (len(seen) - 1)
    assert lengths[-1] == total - size * (len(seen) - 1)


@SEARCH
@given(TRAIN, BATCH_SIZES, SEEDS, DROPOUTS, st.integers(0, 5))
def test_batches_have_the_types_and_numbers_that_they_promise(train, size, seed, dropout, number):
    batches = TrainingBatches(train, size, seed, dropout)
    for place, batch in enumerate(batches.epoch(number)):
        assert batch.items.dtype == np.int64
        assert batch.counts.dtype == np.int32
        assert batch.keep_mask.dtype == bool
        assert len(batch.items) == len(batch.keep_mask) == batch.counts.sum()
        assert batch.first_user == 0
        assert batch.global_users == len(batch.counts) <= batches.max_shard_users
        assert batch.step == number * batches.steps_per_epoch + place


@SEARCH
@given(TRAIN, BATCH_SIZES, SEEDS, DROPOUTS, st.integers(1, 9))
def test_the_workers_shards_in_order_are_the_single_workers_batch(
    train, size, seed, dropout, workers
):
    whole = TrainingBatches(train, size, seed, dropout).epoch(2)
    parts = [TrainingBatches(train, size, seed, dropout, rank, workers) for rank in range(workers)]
    largest = [part.max_shard_users for part in parts]
    assert len(set(largest)) == 1
    for batch, *shards in zip(whole, *(part.epoch(2) for part in parts), strict=True):
        assert np.concatenate([s.items for s in shards]).tolist() == batch.items.tolist()
        assert np.concatenate([s.counts for s in shards]).tolist() == batch.counts.tolist()
        assert np.concatenate([s.keep_mask for s in shards]).tolist() == batch.keep_mask.tolist()
        assert all(s.items.dtype == np.int64 and s.counts.dtype == np.int32 for s in shards)
        users = [len(shard.counts) for shard in shards]
        assert [shard.first_user for shard in shards] == [sum(users[:r]) for r in range(workers)]
        assert {shard.global_users for shard in shards} == {batch.global_users}
        assert {shard.step for shard in shards} == {batch.step}
        assert max(users) - min(users) <= 1
        assert max(users) <= largest[0]


@SEARCH
@given(TRAIN, BATCH_SIZES, SEEDS, DROPOUTS, st.integers(1, 3), st.data())
def test_starting_at_a_later_batch_yields_the_tail(train, size, seed, dropout, workers, data):
    rank = data.draw(st.integers(0, workers - 1))
    batches = TrainingBatches(train, size, seed, dropout, rank, workers)
    first = data.draw(st.integers(0, batches.steps_per_epoch + 1))
    assert epoch(batches, 4, first) == epoch(batches, 4)[first:]


@SEARCH
@given(TRAIN, BATCH_SIZES, SEEDS, st.integers(0, 100))
def test_an_epoch_is_the_same_whatever_was_drawn_before(train, size, seed, number):
    used = TrainingBatches(train, size, seed, 0.5)
    next(used.epoch(number))
    epoch(used, number + 1)
    assert epoch(used, number) == epoch(TrainingBatches(train, size, seed, 0.5), number)


def test_drawing_dropout_block_by_block_changes_nothing(monkeypatch):
    batches = TrainingBatches(random_matrix(30, 12, 0.5, 0), 7, seed=1, dropout=0.5)
    whole = [plain(batch) for batch in batches.epoch(3)]
    monkeypatch.setattr("vae.load.batches._BLOCK", 5)
    assert [plain(batch) for batch in batches.epoch(3)] == whole


def test_every_epoch_and_every_seed_has_its_own_order_and_its_own_dropout():
    rng = np.random.default_rng(0)
    train = csr_matrix(rng.random((200, 30)) < 0.5, dtype=np.uint8)
    cases = [(seed, number) for seed in (0, 1, 2**31 - 1) for number in (0, 1, 2)]
    orders, dropped = set(), set()
    for seed, number in cases:
        (batch,) = TrainingBatches(train, 200, seed, 0.5).epoch(number)
        orders.add(tuple(batch.items.tolist()))
        dropped.add(tuple(batch.keep_mask.tolist()))
    assert len(orders) == len(dropped) == len(cases)


@SEARCH
@given(tellable_users(), SEEDS, st.integers(1, 40), st.integers(1, 40))
def test_the_batch_size_changes_neither_the_order_nor_the_dropout(train, seed, size, other):
    def joined(size):
        batches = list(TrainingBatches(train, size, seed, 0.5).epoch(1))
        items = np.concatenate([batch.items for batch in batches]).tolist()
        return items, np.concatenate([batch.keep_mask for batch in batches]).tolist()

    assert joined(size) == joined(other)


@pytest.mark.parametrize("dropout", [0.0, 0.25, 0.5, 0.9])
def test_dropout_drops_its_fraction_of_the_items(dropout):
    train = csr_matrix(np.ones((200, 500), np.uint8))
    (batch,) = TrainingBatches(train, 200, 7, dropout).epoch(0)
    # 100,000 coins: the fraction has a standard deviation of 0.0016 at most.
    assert abs((1 - batch.keep_mask.mean()) - dropout) < 0.01
    if dropout == 0:
        assert batch.keep_mask.all()
