"""Signals that stop a run."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, wait_for

from vae.errors import UserError
from vae.utils.signals import SIGNALS, StopSignals, exit_code, unwinding

CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129, "SIGUSR1": 138, "SIGUSR2": 140,
         "SIGXCPU": 152}  # fmt: skip

STEP = (
    "import hashlib, signal, sys\n"
    "from vae.utils.signals import StopSignals\n"
    "with StopSignals() as signals:\n"
    "    print('ready', flush=True)\n"
    # Like a step of TensorFlow's: minutes in which the interpreter runs no handler.
    "    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"
)


def start(program, **options):
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def handlers():
    """Puts back what a run that a signal ended leaves."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_is_recorded_and_what_belongs_to_it_does_not_end_the_process(number, handlers):
    def stop():
        with StopSignals() as signals:
            assert signals.received is None
            os.kill(os.getpid(), number)
            wait_for(lambda: signals.received)
            assert signals.received == number
            raise UserError("stopped", exit_code(number))

    with pytest.raises(UserError):
        stop()
    os.kill(os.getpid(), signal.SIGTERM)  # while the process ends
    time.sleep(0.1)
    assert exit_code(number) == CODES[number.name]


def test_without_a_signal_the_handlers_are_restored(handlers):
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != handlers[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers


def test_a_signal_at_the_end_of_the_block_is_not_lost():
    program = STEP.replace("'', 10**9", "'', 3 * 10**6") + "signal.pause()\n"
    with start(program) as process:
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=60) == -signal.SIGUSR1


def test_two_signals_within_a_second_are_one_and_a_later_one_ends_the_process_in_a_step():
    with start(STEP) as process:
        for pause in (0.1, 0.1, 1.2):
            process.send_signal(signal.SIGTERM)
            time.sleep(pause)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == exit_code(signal.SIGINT) == 130


def test_a_signal_that_the_parent_ignores_stays_ignored():
    def ignore():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    with start(STEP, preexec_fn=ignore) as process:  # as nohup does, and a shell for cmd &
        for number in (*SIGNALS, *SIGNALS):
            process.send_signal(number)
            time.sleep(0.2)
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_an_error_of_a_library_does_not_take_the_place_of_a_signal(number, expected):
    def build():
        with unwinding(lambda: None):
            try:
                signal.raise_signal(number)
            finally:
                raise AttributeError

    before = signal.getsignal(number)
    with pytest.raises(expected) as caught:
        build()
    assert caught.value.args == ((143,) if number == signal.SIGTERM else ())
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("sends", [False, True])
def test_an_error_while_cleaning_up_leaves_no_handler(sends, handlers):
    def fail():
        if sends:
            signal.raise_signal(signal.SIGHUP)
        raise OSError

    with pytest.raises(SystemExit if sends else OSError), unwinding(fail):
        pass
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers
