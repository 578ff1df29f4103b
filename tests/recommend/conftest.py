"""The finished run's data and weights, for tests that recompute what its model recommends."""

import pytest
from helpers import checkpoints, variables

from vae.load.store import open_dataset


@pytest.fixture(scope="session")
def dataset(demo_data):
    return open_dataset(demo_data, "synthetic")


@pytest.fixture(scope="session")
def weights(run):
    """The variables of the best checkpoint, which is the last one."""
    return variables(checkpoints(run[0])[-1])
