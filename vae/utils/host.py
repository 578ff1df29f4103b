"""What this host has: its processor, its memory, and what TensorFlow would abort without."""

from __future__ import annotations

import os
import platform
import re
import resource
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vae.errors import UserError

_PROCESS = Path("/proc/self/exe")
"""TensorFlow looks it up when it saves."""


def cpu_info(*names: str) -> str:
    """Return the first processor's field of one of these names in ``/proc/cpuinfo``, or nothing."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    field = re.search(rf"^(?:{'|'.join(names)})\s*: *(.*)", text, re.MULTILINE)
    return field[1].strip() if field else ""


def processor_name() -> str:
    """Return the model name of the first processor, or its architecture."""
    return cpu_info("model name") or platform.machine()


def physical_bytes() -> int:
    """Return the size of the memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes(workers_here: int = 1, root: Path = Path("/")) -> int:
    """Return the memory available to all workers of this host, in bytes.

    The minimum of the memory, the limit of this process's control group, which the workers are
    assumed to share, and the limits of their address spaces (``ulimit -v``).
    """
    limits = [physical_bytes(), *_control_group_limits(root)]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(workers_here * address_space)
    return min(limits)


def _control_group_limits(root: Path) -> Iterator[int]:
    """Yield the limits, in bytes, of this process's control group (version 2) and its parents.

    Inside a container the name of the group may be the host's; the container's limit is then that
    of the root group.
    """
    with suppress(OSError):  # not Linux
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8")
        for name in re.findall("^0::/(.*)", groups, re.MULTILINE):
            file = root / "sys/fs/cgroup" / name / "memory.max"
            for folder in file.parents:
                with suppress(OSError, ValueError):  # no such file; "max"
                    yield int((folder / file.name).read_text(encoding="utf-8"))


def check_process(threads: int) -> None:
    """Check that TensorFlow will not abort, for want of a ``/proc`` or of so many threads.

    Raises:
        UserError: there is no ``/proc``.
        RuntimeError: this process cannot start the threads, of which ``main.py`` makes a sentence.
    """
    if not os.path.lexists(_PROCESS):
        raise UserError(f"{_PROCESS}: file not found, and TensorFlow needs it; mount /proc.")
    is_over = threading.Event()
    try:
        for _ in range(threads):
            threading.Thread(target=is_over.wait).start()
    finally:
        is_over.set()
