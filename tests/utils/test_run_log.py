"""The run's log: plain numbers, valid JSON, dllogger's lines with or without dllogger."""

import json
import math
import os
import socket
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vae.config import Config
from vae.errors import UserError
from vae.utils import console_lines, dllogger_fallback, run_log
from vae.utils.distributed import SingleWorker
from vae.utils.run_log import RunLog

LOGGERS = {"fallback": dllogger_fallback}
if find_spec("dllogger"):  # `make dllogger` installs NVIDIA's
    LOGGERS["dllogger"] = import_module("dllogger")


@pytest.fixture(autouse=True, params=LOGGERS)
def logger(request, monkeypatch):
    """The module that writes the lines: the fallback, and NVIDIA's where it is installed."""
    monkeypatch.setattr(run_log, "dllogger", LOGGERS[request.param])
    return LOGGERS[request.param]


def lines(path):
    return [json.loads(x.removeprefix("DLLL ")) for x in path.read_text().splitlines()]


def test_numpy_numbers_become_json_and_what_is_not_finite_is_left_out(tmp_path):
    RunLog(tmp_path / "log").log(
        (3,), {"a": np.float32(0.5), "b": np.int64(2), "c": math.nan, "d": np.inf}
    )
    (line,) = lines(tmp_path / "log")
    assert line["step"] == [3]
    assert line["data"] == {"a": 0.5, "b": 2}


def test_a_line_has_dlloggers_keys(tmp_path):
    RunLog(tmp_path / "log").log((), {"train_epoch_time": 1.0})
    unit, line = lines(tmp_path / "log")
    assert set(line) == {"timestamp", "datetime", "elapsedtime", "type", "step", "data"}
    assert set(unit) == {"timestamp", "datetime", "elapsedtime", "type", "metric", "metadata"}
    assert unit["metadata"]["unit"] == "s"
    float(line["timestamp"])
    float(line["elapsedtime"])


def test_a_value_with_a_unit_gets_it_before_its_first_line_once_per_run(tmp_path):
    for _ in range(2):
        log = RunLog(tmp_path / "log")
        log.log((1,), {"loss": 1.0, "ndcg@100": 0.5})
        log.log((2,), {"loss": 1.0, "valid_users": 3, "batch_1_p90_latency": 0.1})
    found = [line.get("step") or {line["metric"]: line["metadata"]} for line in lines(log._path)]
    loss, users, latency = (
        {name: {"unit": unit}}
        for name, unit in (
            ("loss", "nats/user"), ("valid_users", "users"), ("batch_1_p90_latency", "s"),
        )
    )  # fmt: skip
    assert found == [loss, [1], users, latency, [2]] * 2


def test_the_console_shows_what_people_watch_and_the_log_holds_everything(
    tmp_path, capsys, monkeypatch
):
    log = RunLog(tmp_path / "log")
    monkeypatch.setattr(console_lines, "monotonic", iter([1000.0, 1190.0, 1200.0]).__next__)
    dataset = SimpleNamespace(name="mine", train=np.zeros((4953, 1200)))
    log.begin(SingleWorker("1 worker"), Config.of(train=True, epochs=60), dataset, ["More."])
    epoch = {"train_epoch_time": 90.0, "train_throughput": 14068.2, "loss": 102.71, "kl_weight": 1}
    metrics = {"ndcg@100": 0.3823, "recall@20": 0.461, "recall@50": 0.651}
    errors = {"ndcg@100_se": 0.0101, "recall@20_se": 0.01, "valid_time": 2.0}
    log.log((12,), epoch)
    log.log((12,), metrics | errors, "best so far")
    log.log((13,), epoch)
    log.log((13,), metrics)
    log.log((60,), epoch)
    log.log((), {"mean_training_throughput": 14000.0, "best_ndcg@100": 0.3823, "x": 1.0})
    log.log((), {"x": 1.0})
    assert capsys.readouterr().out.splitlines() == [
        "Data set mine: 4,953 training users, 1,200 items; 1 worker.",
        "More.",
        "epoch 12/60   loss 102.7   14,068 users/s   1 h 12 min left",
        "epoch 12      NDCG@100 0.382 ± 0.010   Recall@20 0.461   Recall@50 0.651   best so far",
        "epoch 13/60   loss 102.7   14,068 users/s   1 h 50 min left",
        "epoch 13      NDCG@100 0.382   Recall@20 0.461   Recall@50 0.651",
        "epoch 60/60   loss 102.7   14,068 users/s",
        "summary       training 14,000 users/s   best NDCG@100 0.382",
    ]
    logged = [line["data"] for line in lines(tmp_path / "log") if line["type"] == "LOG"]
    assert logged[1:4] == [epoch, metrics | errors, epoch]
    assert logged[0]["epochs"] == 60


def test_runs_that_share_a_log_at_the_same_time_keep_each_others_lines_whole(tmp_path):
    logs = [RunLog(tmp_path / "log") for _ in range(2)]
    for log in logs:
        log.log("PARAMETER", {"path": "x" * 20_000})  # more than a buffer holds
    for epoch in range(100):
        for log in logs:
            log.log((epoch,), {"loss": 1.0})
    written = lines(tmp_path / "log")
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


def test_other_ranks_log_nothing(tmp_path, capsys):
    log = RunLog(tmp_path / "log", enabled=False)
    log.log("PARAMETER", {"x": 1})
    log.say("hello")
    assert not (tmp_path / "log").exists()
    assert capsys.readouterr().out == ""


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
    ],
    ids=["folder", "fifo", "socket", "loop"],
)
def test_a_log_that_is_no_file_is_named_at_once(make, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket has to be short
    make(Path("log"))
    with pytest.raises(UserError, match=f"--log_path log: cannot be written .{reason}.; name an"):
        RunLog(Path("log"))


def test_a_log_in_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--log_path .*file/log: cannot be written"):
        RunLog(tmp_path / "file/log")


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
