"""Temporary files and folders: whole or not at all, never in the way, removed when left behind."""

import os
import signal
import stat
from pkgutil import resolve_name

import pytest

from vae.utils.atomic import (
    lock_folder,
    read_text,
    sha256,
    temporary_file,
    temporary_folder,
    write_atomically,
)
from vae.utils.signals import SIGNALS


@pytest.fixture(params=[temporary_file, temporary_folder])
def temporary(request):
    return request.param


def test_a_file_is_written_as_a_whole_with_the_mode_of_the_umask(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with path.open() as reader:  # who opened the file before has the whole of it
        write_atomically(path, "new", durable=True)
        assert reader.read() == "old"
    assert path.read_text() == "new"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "plain"}


def test_a_failed_write_leaves_nothing(tmp_path, temporary):
    def fail():
        with temporary(tmp_path / "x") as path:
            (path if temporary is temporary_file else path / "half").touch()
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.fixture(params=[number for number in SIGNALS if number != signal.SIGINT])
def number(request):
    """A signal that ends the process."""
    return request.param


@pytest.mark.parametrize(
    "function",
    ["fcntl.flock", "os.getppid", "shutil.rmtree"],
    ids=["just created", "in use", "being removed"],
)
def test_a_signal_that_ends_the_process_leaves_nothing(
    tmp_path, temporary, number, function, monkeypatch
):
    def stopped(*args, **kwargs):
        os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    original = resolve_name(function)
    monkeypatch.setattr(function, stopped)
    with pytest.raises(SystemExit) as caught, temporary(tmp_path / "x"):
        os.getppid()
    assert caught.value.code == 128 + number
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(number) == signal.SIG_DFL


def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_in_use(tmp_path, temporary):
    (tmp_path / ".writing-0123").mkdir()
    (tmp_path / ".writing-0123/half").touch()
    (tmp_path / ".mine").touch()
    (tmp_path / ".writing-4567").symlink_to(tmp_path / ".mine")
    with temporary(tmp_path / "model") as first, temporary(tmp_path / "model") as second:
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {first.parent.name, second.parent.name, ".mine", ".writing-4567"}


def test_a_long_name_has_a_temporary_file_too(tmp_path):
    path = tmp_path / ("\N{SNOWMAN}" * 84 + ".gz")
    with temporary_file(path) as temporary:
        assert temporary.name == path.name
        temporary.touch()
        temporary.replace(path)
    assert path.exists()


def test_a_folder_is_locked_for_one_process_at_a_time(tmp_path):
    first = lock_folder(tmp_path)
    with pytest.raises(BlockingIOError):
        lock_folder(tmp_path)
    os.close(first)
    os.close(lock_folder(tmp_path))


def test_a_pipe_in_place_of_a_file_is_an_error_and_no_hang(tmp_path):
    os.mkfifo(tmp_path / "state.json")
    for read in (read_text, sha256):
        with pytest.raises(OSError, match="not a regular file"):
            read(tmp_path / "state.json")
    assert stat.S_ISFIFO((tmp_path / "state.json").stat().st_mode)
