"""The run's log: plain numbers, valid JSON, dllogger's lines with or without dllogger."""

import json
import math

import numpy as np
import pytest

from vae.errors import UserError
from vae.utils import dllogger_lines, logging
from vae.utils.logging import UNITS, RunLog


@pytest.fixture(autouse=True)
def ours(monkeypatch):
    """Tests the stand-in, wherever dllogger may be installed."""
    monkeypatch.setattr(logging, "dllogger", dllogger_lines)


def lines(path):
    return [json.loads(x.removeprefix("DLLL ")) for x in path.read_text().splitlines()]


def test_numpy_numbers_become_json_and_what_is_not_finite_is_left_out(tmp_path):
    with RunLog(tmp_path / "log", append=False) as log:
        log.log((3,), {"a": np.float32(0.5), "b": np.int64(2), "c": math.nan, "d": np.inf})
    (line,) = lines(tmp_path / "log")
    assert line["step"] == [3]
    assert line["data"] == {"a": 0.5, "b": 2}


def test_a_line_has_dlloggers_keys(tmp_path):
    with RunLog(tmp_path / "log", append=False) as log:
        log.units({"train_epoch_time": "s"})
        log.log((), {"train_epoch_time": 1.0})
    unit, line = lines(tmp_path / "log")
    assert set(line) == {"timestamp", "datetime", "elapsedtime", "type", "step", "data"}
    assert set(unit) == {"timestamp", "datetime", "elapsedtime", "type", "metric", "metadata"}
    assert unit["metadata"]["unit"] == "s"
    float(line["timestamp"])
    float(line["elapsedtime"])


def test_people_read_names_rounded_values_and_units(tmp_path, capsys):
    with RunLog(tmp_path / "log", append=False) as log:
        log.units(UNITS)
        log.log((1,), {"train_throughput": 1234.56789, "kl_weight": 0.1, "other": "text"})
    shown = capsys.readouterr().out
    assert shown.startswith("DLL ")
    assert "(1,) train_throughput : 1234.6 users/s kl_weight : 0.1  other : text" in shown


def test_a_log_is_appended_to_only_if_asked(tmp_path):
    for append, expected in ((False, 1), (True, 2), (False, 1)):
        with RunLog(tmp_path / "log", append) as log:
            log.log((), {"x": 1})
        assert len(lines(tmp_path / "log")) == expected


def test_other_ranks_log_nothing(tmp_path, capsys):
    with RunLog(tmp_path / "log", append=False, enabled=False) as log:
        log.parameters({"x": 1})
        log.say("hello")
    assert not (tmp_path / "log").exists()
    assert capsys.readouterr().out == ""


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--log_path .*file/log: cannot be written"):
        RunLog(tmp_path / "file/log", append=False)
