"""The watchdog: it ends the process when what was reported does not end, and at no other time."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, wait_for

from vae.utils import distributed, watchdog
from vae.utils.distributed import HorovodWorkers
from vae.utils.watchdog import Watchdog

TIMEOUT = 2.0
"""Seconds; more than a busy machine takes for what is not meant to hang."""


@pytest.fixture
def ends(monkeypatch):
    """A list with an entry for each process that would have ended."""
    entries = []
    monkeypatch.setattr(watchdog.os, "_exit", entries.append)
    return entries


def test_a_rank_says_where_it_has_waited_before_its_process_ends(ends, capfd, monkeypatch):
    monkeypatch.setattr(distributed.socket, "gethostname", lambda: "host7")
    rank = HorovodWorkers.__new__(HorovodWorkers)  # Horovod joins ranks in jobs alone
    rank.rank, rank._timeout, rank._watchdog = 3, "2 s", Watchdog(TIMEOUT)
    rank.report_position("step 5")
    wait_for(lambda: ends)
    assert capfd.readouterr().err.startswith(
        "main.py: error: rank 3 on host7 has waited for 2 s in step 5; a rank that says nothing "
        "like this is the one that hangs; the earlier checkpoints are complete: rerun the same"
    )
    assert ends == [1]


def test_slow_steps_and_long_work_between_them_are_no_hang(ends):
    rank = Watchdog(TIMEOUT)
    for step in range(4):
        rank.report(f"step {step}")
        time.sleep(TIMEOUT / 2)
    rank.report(None)
    time.sleep(1.5 * TIMEOUT)
    rank.report("step 4")  # a new one, however long the work before it took
    time.sleep(TIMEOUT / 4)
    rank.report(None)
    assert not ends


def test_a_process_that_is_paused_goes_on():
    program = (
        "import sys, time; from vae.utils.watchdog import Watchdog\n"
        f"Watchdog({TIMEOUT}).report('it did not end'); print('ready', flush=True)\n"
        f"time.sleep({TIMEOUT / 2}); print('goes on', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(2 * TIMEOUT)
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout.readline() == "goes on\n"
        time.sleep(TIMEOUT / 8)
        assert process.poll() is None
        assert process.wait(timeout=60) == 1
        assert process.stderr.read() == "main.py: error: it did not end.\n"
