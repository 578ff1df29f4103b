"""The host: its memory under control groups and limits, and what TensorFlow would abort without."""

import os
import platform
import resource

import pytest

from vae.errors import UserError
from vae.utils import host
from vae.utils.host import available_bytes, check_process, cpu_info, processor_name

GROUPS = "sys/fs/cgroup"
PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("group", "limits", "expected"),
    [
        ("0::/", {"": "7000\n"}, 7000),
        ("0::/", {"": "max\n"}, PHYSICAL),
        ("0::/", {}, PHYSICAL),
        ("0::/a/b", {"a": "5000\n", "a/b": "max\n"}, 5000),
        ("0::/a/b", {"a": "9000\n", "a/b": "6000\n"}, 6000),
        ("0::/of/the/host", {"": "3000\n"}, 3000),  # as a container sees it
        ("3:cpu:/\n0::/a", {"a": "4000\n"}, 4000),
        (None, {"": "7000\n"}, PHYSICAL),
    ],
)
def test_memory_is_what_the_host_and_the_control_groups_leave(tmp_path, group, limits, expected):
    files = {f"{GROUPS}/{name}/memory.max": limit for name, limit in limits.items()}
    if group is not None:
        files["proc/self/cgroup"] = f"{group}\n"
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert available_bytes(root=tmp_path) == expected


def test_each_worker_has_an_address_space_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1000, 2000))
    assert available_bytes(root=tmp_path) == 1000
    assert available_bytes(workers_here=3, root=tmp_path) == 3000


def test_a_host_without_proc_or_threads_is_refused_where_tensorflow_would_abort(
    monkeypatch, tmp_path
):
    check_process(threads=4)
    monkeypatch.setattr(host, "_PROCESS", tmp_path / "exe")
    with pytest.raises(UserError, match="exe: file not found, and TensorFlow needs it; mount /pro"):
        check_process(threads=4)
    monkeypatch.undo()

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", start)
    with pytest.raises(RuntimeError):
        check_process(threads=4)


def test_a_processor_without_a_name_has_its_architecture():
    assert cpu_info("no such field") == ""
    assert processor_name() == (cpu_info("model name") or platform.machine())
