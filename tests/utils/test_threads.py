"""Prefetching: the same elements, in order, and no thread that outlives its use."""

import contextlib
import threading

import pytest

from vae.utils.threads import prefetch


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_prefetching_raises_an_error_where_the_element_would_have_been_used(depth):
    def elements():
        yield 1
        yield 2
        raise RuntimeError("no third element")

    ahead = prefetch(elements(), depth)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(RuntimeError, match="no third element"):
        next(ahead)


def test_prefetching_works_ahead_in_another_thread_and_never_further_than_its_depth():
    made, threads = [], set()

    def elements():
        for number in range(10):
            made.append(number)
            threads.add(threading.get_ident())
            yield number

    for used, number in enumerate(prefetch(elements(), 3)):
        assert number == used
        assert len(made) <= used + 1 + 3
    assert made == list(range(10))
    assert threading.get_ident() not in threads
    assert len(threads) == 1
    assert [*prefetch(iter([]))] == []


@pytest.mark.parametrize("end", ["used up", "closed", "failed"])
def test_no_thread_is_left_when_prefetching_ends(end):
    def elements():
        try:
            for number in range(1000):
                made.append(number)
                yield number
                if end == "failed":
                    raise RuntimeError
        finally:
            made.append("closed")

    made = []
    before = set(threading.enumerate())
    ahead = prefetch(elements(), 2)
    next(ahead)
    (thread,) = set(threading.enumerate()) - before
    if end == "closed":
        ahead.close()
        assert len(made) <= 5
    else:
        with contextlib.suppress(RuntimeError):
            list(ahead)
    assert not thread.is_alive()
    assert made[-1] == "closed"
