"""Replicas that differ are named."""

from types import SimpleNamespace

import pytest

from vae.errors import UserError
from vae.models.training import replicas


@pytest.mark.parametrize(
    ("digests", "named"),
    [
        ("aaa", None),
        ("ab", "rank 1 differ from those of rank 0 at step 9"),
        ("baa", "rank 0 differ from those of rank 1 at step 9"),
        ("abac", "rank 1, rank 3 differ from those of rank 0 at step 9"),
        ("abba", "rank 1, rank 2 differ from those of rank 0 at step 9"),
    ],
)
def test_the_ranks_that_differ_from_most_are_named(digests, named, monkeypatch):
    monkeypatch.setattr(replicas, "_digest", lambda *_: "of this rank")
    workers = SimpleNamespace(size=len(digests), allgather_object=lambda value: list(digests))
    if named is None:
        replicas.check_replicas(workers, None, (), "step 9")
    else:
        with pytest.raises(UserError, match=named) as caught:
            replicas.check_replicas(workers, None, (), "step 9")
        assert caught.value.exit_code == 1
