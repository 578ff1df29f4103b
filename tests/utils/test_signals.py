"""StopOrSave to stop."""

import os
import signal
import subprocess
import sys
import time

from helpers import ROOT

from vae.utils.signals import StopSignals, exit_code


def test_a_signal_is_recorded_and_the_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while signals.received is None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert signals.received == signal.SIGTERM
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_signal_ends_the_process_in_the_middle_of_a_step():
    program = (
        "import hashlib\n"
        "from vae.utils.signals import StopSignals\n"
        "with StopSignals():\n"
        "    print('ready', flush=True)\n"
        # Like a step of TensorFlow's: minutes in which the interpreter runs no handler.
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == exit_code(signal.SIGINT) == 130
