"""Ways to run the programs, and readers of the files that a run leaves, for all tests."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae.utils.signals import SIGNALS

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SMALL = ("--hidden_dim", 64, "--latent_dim", 16, "--batch_size_train", 200, "--lr", 0.005)
METRICS = ("ndcg@100", "recall@20", "recall@50")

ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
"""One core per worker: runs that are compared bit for bit need the same number of threads."""


class Done(NamedTuple):
    """A finished program: its exit code and its output."""

    returncode: int
    stdout: str
    stderr: str


def run_script(script, *flags, cwd=ROOT, env=None, timeout=240, launcher=()):
    """Run a script of the repository in a process of its own, or in those of a launcher."""
    command = [*launcher, sys.executable, str(ROOT / script), *map(str, flags)]
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def run_main(*arguments):
    """Run main.py in this process, which saves the import of TensorFlow."""
    from main import main  # not above: some tests do without TensorFlow

    return _call(main, arguments)


def run_prepare(*arguments):
    """Run prepare_dataset.py in this process."""
    from prepare_dataset import main

    return _call(main, arguments)


def output_of(done):
    """The standard output of a program that succeeded."""
    assert done.returncode == 0, done.stderr
    return done.stdout


def error_of(done, code=2):
    """The standard error of a program that failed; with code 2 it had trained nothing."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert code != 2 or "\nepoch " not in done.stdout
    return done.stderr


def _call(main, arguments):
    """The end of ``main(arguments)``; signals are met as before, as after the end of a process."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", newline="", write_through=True)
        for _ in range(2)
    )
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([*map(str, arguments)])
    except SystemExit as end:  # of --help and --version
        code = end.code or 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
    done = Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))
    assert "Traceback" not in done.stderr
    return done


class Forked:
    """main.py with one thread, in a process forked from a server that has imported TensorFlow.

    It takes signals like the process of the script, and starts in a fraction of the time.
    """

    def __init__(self, arguments):
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(["helpers", "vae.models.training.train"])
        self._output = Path(tempfile.mkdtemp())
        self.process = processes.Process(
            target=_main, args=([*map(str, arguments)], str(self._output))
        )
        self.process.start()

    def poll(self):
        """The exit code; None while it runs."""
        return self.process.exitcode

    def wait(self, timeout=240):
        """The end of the program."""
        self.process.join(timeout)
        code = self.process.exitcode
        self.process.kill()
        files = [self._output / name for name in ("stdout", "stderr")]
        # A signal may end it before it opens them.
        output = [file.read_text() if file.exists() else "" for file in files]
        shutil.rmtree(self._output)
        assert code is not None, f"it still runs; {output[1]}"
        return Done(code, *output)


def _main(arguments, output):
    """Be main.py: the body of a forked process."""
    os.environ.update(ONE_THREAD)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(output) / name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
        os.close(file)
    from main import main
    from vae.utils.console import open_console

    open_console()
    sys.exit(main(arguments))


def flags(data, folder, *more, dataset="synthetic"):
    """Flags of a run on prepared data whose checkpoints and log lie in a folder, and more flags."""
    outputs = ("--checkpoint_dir", folder / "ckpt", "--log_path", folder / "run.log")
    return [*map(str, ("--dataset", dataset, "--data_dir", data, *outputs, *more))]


def write(path, content):
    """Write text or bytes to a file; return its path."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def mpirun(workers):
    """The beginning of a command that starts workers on this machine under MPI."""
    path = shutil.which("mpirun", path=BIN) or shutil.which("mpirun")
    assert path, "Horovod is installed with an MPI: run 'make horovod'"
    options = ("--allow-run-as-root", "--oversubscribe", "--bind-to", "none")
    return (path, *options, "-np", str(workers))


def horovodrun(workers):
    """The same under Gloo."""
    return (str(BIN / "horovodrun"), "--gloo", "-np", str(workers), "-H", f"localhost:{workers}")


def log_lines(path):
    """The JSON objects of a log file; a line without the prefix DLLL is an error."""
    lines = path.read_text().splitlines()
    assert all(line.startswith("DLLL ") for line in lines)
    return [json.loads(line.removeprefix("DLLL ")) for line in lines]


def checkpoints(folder):
    """The checkpoints of a run, oldest first."""
    return sorted((folder / "ckpt").glob("step-*"))


def variables(checkpoint):
    """Weights, Adam's slots and the global step by name."""
    import tensorflow.compat.v1 as tf

    reader = tf.train.load_checkpoint(str(checkpoint / "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def newest_step(folder):
    """The step of a run's newest checkpoint; 0 without one."""
    return max((int(path.name[5:]) for path in checkpoints(folder)), default=0)


def copy(reference, folder, keep=None):
    """A folder with the checkpoints of a run: all, or those of steps up to ``keep``."""
    shutil.copytree(reference / "ckpt", folder / "ckpt")
    for checkpoint in checkpoints(folder):
        if keep is not None and int(checkpoint.name[5:]) > keep:
            shutil.rmtree(checkpoint)
    return folder


def losses(folder):
    """The loss of each epoch; of one that was trained twice, the last."""
    return {
        line["step"][0]: line["data"]["loss"]
        for line in log_lines(folder / "run.log")
        if line["type"] == "LOG" and "loss" in line["data"]
    }


def assert_close_weights(folder, reference, rtol=2e-3, atol=2e-5):
    """The newest checkpoints of two runs hold the same variables up to rounding."""
    found, expected = (variables(checkpoints(run)[-1]) for run in (folder, reference))
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=atol, err_msg=name)


def assert_same_run(folder, reference):
    """Two runs logged the same losses and ended with the same variables, bit for bit."""
    assert_close_weights(folder, reference, rtol=0, atol=0)
    assert losses(folder) == losses(reference)


def wait_for(condition, job=None, seconds=120):
    """Wait for a condition that has to come true while the job runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert job is None or job.poll() is None, "the job ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.01)
