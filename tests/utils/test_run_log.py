"""The run's log: plain numbers, valid JSON, dllogger's lines with or without dllogger."""

import json
import math
import os
import socket
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers import log_lines

from vae.errors import UserError
from vae.utils import dllogger_fallback, run_log
from vae.utils.run_log import RunLog

LOGGERS = {"fallback": dllogger_fallback}
if find_spec("dllogger"):  # `make dllogger` installs NVIDIA's
    LOGGERS["dllogger"] = import_module("dllogger")


@pytest.fixture(autouse=True, params=LOGGERS)
def logger(request, monkeypatch):
    """The module that writes the lines: the fallback, and NVIDIA's where it is installed."""
    monkeypatch.setattr(run_log, "dllogger", LOGGERS[request.param])
    return LOGGERS[request.param]


def test_numpy_numbers_become_json_and_what_is_not_finite_is_left_out(tmp_path):
    RunLog(tmp_path / "log").log(
        (3,), {"a": np.float32(0.5), "b": np.int64(2), "c": math.nan, "d": np.inf}
    )
    (line,) = log_lines(tmp_path / "log")
    assert line["step"] == [3]
    assert line["data"] == {"a": 0.5, "b": 2}


def test_a_value_with_a_unit_gets_it_before_its_first_line_once_per_run_with_dlloggers_keys(
    tmp_path,
):
    units = {"loss": "nats/user", "valid_users": "users", "latency": "s"}
    for _ in range(2):
        log = RunLog(tmp_path / "log", units.get)
        log.log("PARAMETER", {"loss": 1})
        log.log((1,), {"loss": 1.0, "ndcg@100": 0.5})
        log.log((2,), {"loss": 1.0, "valid_users": 3, "latency": 0.1})
    lines = log_lines(tmp_path / "log")
    of_kind = {"LOG": {"step", "data"}, "METADATA": {"metric", "metadata"}}
    for line in lines:
        times = {"timestamp", "datetime", "elapsedtime"}
        assert set(line) == {*times, "type"} | of_kind[line["type"]]
        assert float(line["timestamp"]) > float(line["elapsedtime"])
    found = [line.get("step") or {line["metric"]: line["metadata"]} for line in lines]
    loss, users, latency = ({name: {"unit": unit}} for name, unit in units.items())
    assert found == ["PARAMETER", loss, [1], users, latency, [2]] * 2


def test_what_people_watch_is_printed_and_callbacks_get_the_epochs(tmp_path, capsys):
    epochs = []

    def line_of(step, values, note):
        return f"{step} {values} {note}" if note else ""

    log = RunLog(tmp_path / "log", line_of=line_of, callbacks=[lambda *epoch: epochs.append(epoch)])
    log.say("hello")
    log.log((1,), {"a": np.float32(0.5), "b": math.inf}, "the best")
    log.log((2,), {"a": 2})
    log.log((), {"a": 3})
    assert capsys.readouterr().out == "hello\n(1,) {'a': 0.5} the best\n"
    assert epochs == [(1, {"a": 0.5}), (2, {"a": 2})]


def test_runs_that_share_a_log_at_the_same_time_keep_each_others_lines_whole(tmp_path):
    logs = [RunLog(tmp_path / "log") for _ in range(2)]
    for log in logs:
        log.log("PARAMETER", {"path": "x" * 20_000})  # more than a buffer holds
    for epoch in range(100):
        for log in logs:
            log.log((epoch,), {"loss": 1.0})
    written = log_lines(tmp_path / "log")
    epochs = [[epoch] for epoch in range(100) for _ in logs]
    steps = [line["step"] for line in written if line["type"] == "LOG"]
    assert steps == ["PARAMETER", "PARAMETER", *epochs]


def test_a_closed_log_leaves_no_file_open(tmp_path):
    descriptors = Path("/proc/self/fd")
    before = sorted(descriptors.iterdir())
    log = RunLog(tmp_path / "log")
    log.log((), {"a": 1})
    log.close()
    log.close()
    assert sorted(descriptors.iterdir()) == before


def test_a_log_whose_last_line_was_cut_is_continued_on_a_new_line(tmp_path):
    (tmp_path / "log").write_text('DLLL {"type": "LOG"}\nDLLL {"timesta')
    for step in (1, 2):
        RunLog(tmp_path / "log").log((step,), {"x": 1})
    whole, cut, *new = (tmp_path / "log").read_text().splitlines()
    assert (whole, cut) == ('DLLL {"type": "LOG"}', 'DLLL {"timesta')
    assert [json.loads(line.removeprefix("DLLL "))["step"] for line in new] == [[1], [2]]


def test_other_ranks_log_nothing(capsys):
    log = RunLog(None, callbacks=[print])
    log.log((1,), {"x": 1})
    log.say("hello")
    log.progress("Testing the model", 3).update()
    log.close()
    assert capsys.readouterr() == ("", "")


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (os.mkfifo, "a FIFO or a socket that no program reads"),
        (a_socket, "a FIFO or a socket that no program reads"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.parent.write_text(""), "File exists"),
    ],
    ids=["folder", "fifo", "socket", "loop", "in a file"],
)
def test_a_log_that_is_no_file_is_named_at_once(make, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket has to be short
    path = Path("in/log") if reason == "File exists" else Path("log")
    make(path)
    with pytest.raises(UserError, match=f"--log_path {path}: cannot be written .{reason}.; name "):
        RunLog(path)


def test_a_log_may_be_a_pipe_that_is_read_as_standard_output_often_is():
    reader, writer = os.pipe()
    with os.fdopen(reader) as read, os.fdopen(writer):
        RunLog(Path(f"/dev/fd/{writer}")).log((1,), {"x": 1})
        assert json.loads(read.readline().removeprefix("DLLL "))["data"] == {"x": 1}


def test_a_line_that_could_not_be_written_is_not_tried_again_at_the_end(logger, monkeypatch):
    ends = []

    class Logger(logger.Logger):
        """Does at the end of the process what NVIDIA's does."""

        def __init__(self, backends):
            super().__init__(backends)
            ends.append(self.flush)

    monkeypatch.setattr(logger, "Logger", Logger)
    log = RunLog(Path("/dev/full"))
    with pytest.raises(UserError, match="No space left on device") as raised:
        log.log("PARAMETER", {"x": 1})
    assert raised.value.exit_code == 1
    ends[0]()
