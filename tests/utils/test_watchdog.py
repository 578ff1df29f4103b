"""The watchdog: it ends the process when another rank hangs, and at no other time."""

import re
import socket
import time

import pytest

from vae.utils import watchdog
from vae.utils.watchdog import Watchdog, deadline

TIMEOUT = 2.0


@pytest.fixture
def ends(monkeypatch):
    """The sentences with which the process would have ended."""
    sentences = []
    monkeypatch.setattr(watchdog, "_end", sentences.append)
    return sentences


@pytest.fixture
def ranks(ends):
    """Connects the watchdogs of a job of this many ranks."""
    made = []

    def connect(size):
        made.extend(Watchdog(rank, size, TIMEOUT) for rank in range(size))
        address = made[0].listen(one_host=True)
        for one in made:
            one.start(address)
        time.sleep(0.5)
        return [*made, address]

    yield connect
    for one in made:
        one.close()


def hang(rank):
    """Stops a rank's thread as SIGSTOP does: its connection stays open."""
    rank._closed.set()
    rank._thread.join()


def wait(ends, seconds=60):
    """Waits until a rank ends the job, which a busy machine may delay."""
    deadline = time.monotonic() + seconds
    while not ends and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("silent", [0, 2])
@pytest.mark.parametrize(("step", "where"), [(4, "in step 5"), (None, "outside of training")])
def test_a_silent_rank_is_named_with_the_step(silent, step, where, ranks, ends):
    *all_of_them, _ = ranks(3)
    for rank in all_of_them:
        rank.report(step)
    hang(all_of_them[silent])
    wait(ends)
    assert ends[0].startswith(f"rank {silent} has been silent for 2 s, {where}; the earlier ")


def test_a_rank_that_ended_without_a_word_is_silent(ranks, ends):
    _, second, _ = ranks(2)
    hang(second)
    for link in second._links:
        link._close()
    wait(ends)
    assert ends[0].startswith("rank 1 has been silent")


def test_a_rank_that_falls_silent_long_after_the_step_began_is_named(ranks, ends):
    first, second, _ = ranks(2)
    first.report(5)
    second.report(5)
    time.sleep(TIMEOUT / 2)
    hang(second)
    wait(ends)
    assert re.match(r"rank 1 has been silent for [012] s, in step 6; the earlier", ends[0])


@pytest.mark.parametrize(
    ("steps", "where"),
    [
        ((6, 5), "rank 1 is in step 6 and another in step 7"),
        ((5, 6), "rank 0 is in step 6 and another in step 7"),
        ((5, 5), "all are in step 6"),
    ],
)
def test_when_no_step_ends_the_rank_that_is_behind_is_named(steps, where, ranks, ends):
    *both, _ = ranks(2)
    for rank, step in zip(both, steps, strict=True):
        rank.report(step)
    wait(ends)
    assert ends[0].startswith(f"no step has ended for 2 s: {where}; the earlier checkpoints are")


def test_a_rank_on_another_host_finds_rank_0_by_its_addresses(ends):
    first, second = (Watchdog(rank, 2, TIMEOUT) for rank in range(2))
    address = first.listen(one_host=False)
    for rank in (first, second):
        rank.start(address)
    time.sleep(0.5)
    hang(second)
    wait(ends)
    first.close()
    assert ends[0].startswith("rank 1 has been silent")


def test_a_rank_that_cannot_be_reached_does_not_keep_the_job_from_ending(ends):
    alone = Watchdog(0, 2, TIMEOUT)
    alone.start(alone.listen(one_host=True))
    alone.report(5)
    wait(ends)
    alone.close()
    assert "all are in step 6; nothing was heard of rank 1;" in ends[0]


def test_slow_steps_long_work_outside_of_training_and_a_rank_that_finished_are_no_hang(ranks, ends):
    first, second, _ = ranks(2)
    for step in range(6):
        first.report(step)
        second.report(step)
        time.sleep(TIMEOUT / 2)
    first.report(None)
    second.report(None)
    time.sleep(1.5 * TIMEOUT)
    second.close()
    time.sleep(1.5 * TIMEOUT)
    assert not ends


def test_who_does_not_know_the_secret_is_ignored(ranks, ends):
    _, second, address = ranks(2)
    deep = b"[" * 4000 + b"\n"
    lines = (
        b"\n",
        b"{}\n",
        b"[]\n",
        b'["no", 1, 0, true]\n',
        b"\xff\n",
        b"7\n",
        deep,
        3 * deep[:-1],
    )
    for line in lines:
        with socket.create_connection((address.hosts[0], address.port)) as stranger:
            stranger.sendall(line)
            time.sleep(0.15)
    hang(second)
    wait(ends)
    assert ends[0].startswith("rank 1 has been silent")


def test_a_block_that_takes_too_long_ends_the_process(ends):
    with deadline(0.2, "too long"):
        pass
    with deadline(0, "never"):
        time.sleep(0.3)
    assert not ends
    with deadline(0.2, "too long"):
        wait(ends)
    assert ends == ["too long"]
