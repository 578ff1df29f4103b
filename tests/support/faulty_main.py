"""main.py with a fault in it: ``python tests/support/faulty_main.py FAULT flags...``."""

import os
import signal
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf

from main import main
from vae.models.graph import precision
from vae.models.inference import evaluate
from vae.models.training import train
from vae.utils import distributed

LAST_RANK = int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) - 1
RANK = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def overflow():
    """On the last rank all gradients overflow, under the loss scaling that a GPU has with --amp."""

    class Overflowing(distributed.HorovodWorkers):
        def optimizer(self, optimizer):
            compute = optimizer.compute_gradients
            poison = np.inf if self.rank == LAST_RANK else 1.0
            optimizer.compute_gradients = lambda *args, **kwargs: [
                (gradient * poison, weight) for gradient, weight in compute(*args, **kwargs)
            ]
            return super().optimizer(optimizer)

    distributed.HorovodWorkers = Overflowing
    train.choose_precision = lambda amp: precision.FLOAT16_REWRITE


def at_step(number, action):
    """Has the last rank do something at the start of a step."""

    def run_step(self, batch):
        if self._state.step == number and RANK == LAST_RANK:
            action()
        return run_step_soundly(self, batch)

    run_step_soundly = train.Trainer._run_step
    train.Trainer._run_step = run_step


def crash():
    """The last rank raises an error of the program's own."""

    def fail():
        raise RuntimeError("a mistake of the program")

    at_step(6, fail)


def signal_in_step():
    """SIGTERM reaches the last rank alone."""
    at_step(6, terminate)


def signal_in_validation():
    """SIGTERM reaches the last rank, before the second batch of the first validation."""

    def feed(histories, rows):
        calls.append(rows)
        if len(calls) == 2 and RANK == LAST_RANK:
            terminate()
        return feed_soundly(histories, rows)

    calls = []
    feed_soundly = evaluate.feed
    evaluate.feed = feed


def flip_bit():
    """One bit of a weight of the last rank flips."""

    def flip():
        kernel = tf.global_variables()[0]
        session = tf.get_default_session()
        value = session.run(kernel)
        value.view(np.uint32)[0, 0] ^= 1 << 12  # the next steps could round a lower one away
        kernel.load(value, session)

    at_step(6, flip)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)  # until the thread that waits for signals has read it


FAULTS = (overflow, crash, signal_in_step, signal_in_validation, flip_bit)

if __name__ == "__main__":
    {fault.__name__: fault for fault in FAULTS}[sys.argv.pop(1)]()
    sys.exit(main())
