"""main.py with a fault in it: ``python tests/support/faulty_main.py FAULT flags...``."""

import errno
import os
import signal
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf

from main import main
from vae.models.checkpoints import checkpoint
from vae.models.graph import precision
from vae.models.training import train
from vae.utils import distributed


def overflow():
    """On the last rank all gradients overflow, under the loss scaling that a GPU has with --amp."""

    class Overflowing(distributed.HorovodWorkers):
        def optimizer(self, optimizer):
            compute = optimizer.compute_gradients
            poison = np.inf if self.rank == self.size - 1 else 1.0
            optimizer.compute_gradients = lambda *args, **kwargs: [
                (gradient * poison, weight) for gradient, weight in compute(*args, **kwargs)
            ]
            return super().optimizer(optimizer)

    distributed.HorovodWorkers = Overflowing
    train.choose_precision = lambda amp: precision.FLOAT16_REWRITE


def at(position, action):
    """Has the last rank do something where it reports that it begins a step or a batch."""

    def report(self, here):
        if here == position and self.rank == self.size - 1:
            action()
        report_soundly(self, here)

    report_soundly = distributed.HorovodWorkers.report_position
    distributed.HorovodWorkers.report_position = report


def crash():
    """The last rank raises an error of the program's own."""

    def fail():
        raise RuntimeError("a mistake of the program")

    at("step 7", fail)


def signal_in_step():
    """SIGTERM reaches the last rank alone."""
    at("step 7", terminate)


def signal_in_validation():
    """SIGTERM reaches the second of two ranks, before its second batch of 100 of 250 users."""
    at("the evaluation of user 350", terminate)


def flip_bit():
    """One bit of a weight of the last rank flips, of a layer that all ranks have."""

    def flip():
        kernel = next(v for v in tf.global_variables() if v.op.name == "encoder/latent/kernel")
        session = tf.get_default_session()
        value = session.run(kernel)
        value.view(np.uint32)[0, 0] ^= 1 << 12  # the next steps could round a lower one away
        kernel.load(value, session)

    at("step 7", flip)


def full_disk():
    """The disk is full after the first block of divided items."""

    def write(prefix, parts, blocks):
        next(blocks)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoint.merge = write


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)  # until the thread that waits for signals has read it


FAULTS = (overflow, crash, signal_in_step, signal_in_validation, flip_bit, full_disk)

if __name__ == "__main__":
    {fault.__name__: fault for fault in FAULTS}[sys.argv.pop(1)]()
    sys.exit(main())
