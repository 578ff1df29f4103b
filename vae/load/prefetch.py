"""Making the next elements of an iterator while the current one is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

Element = TypeVar("Element")


def prefetch(elements: Iterator[Element], depth: int = 2) -> Iterator[Element]:
    """The same elements, made in a background thread up to ``depth`` ahead of their use.

    What the thread raises is raised where the element would have been used. The thread ends with
    this generator, be it used up, closed or thrown into.
    """
    end = object()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    try:
        ahead = deque(pool.submit(next, elements, end) for _ in range(depth))
        while (element := ahead.popleft().result()) is not end:
            ahead.append(pool.submit(next, elements, end))
            yield cast(Element, element)
    finally:
        pool.shutdown(cancel_futures=True)
