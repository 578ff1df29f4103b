"""Work ahead of its use, in a background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

Element = TypeVar("Element")


def prefetch(elements: Iterator[Element], depth: int = 2) -> Generator[Element, None, None]:
    """Yield the same elements, computed by a background thread up to ``depth`` ahead of their use.

    An exception in the thread is raised where the element would have been used. The thread ends
    with this generator, whether that is exhausted, closed or interrupted by an exception, and so
    does that of the elements. Close it where a loop may end early: the garbage collector would do
    so in any thread, at a moment when none can be joined, and wait forever.
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
        if isinstance(elements, Generator):
            elements.close()
