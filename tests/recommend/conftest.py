"""The finished run's data, weights and recommender, for tests that recompute what it recommends."""

import pandas as pd
import pytest
from helpers import checkpoints, variables

import vae
from vae.load.store import open_dataset


@pytest.fixture(scope="session")
def dataset(demo_data):
    return open_dataset(demo_data, "synthetic")


@pytest.fixture(scope="session")
def weights(run):
    """The variables of the best checkpoint, which is the last one."""
    return variables(checkpoints(run[0])[-1])


@pytest.fixture(scope="session")
def movies(demo_data):
    """A file with the titles of all items."""
    return demo_data / "synthetic/extracted/synthetic/movies.csv"


@pytest.fixture(scope="session")
def recommender(run, demo_data, movies):
    return vae.Recommender.load(run[0] / "ckpt", demo_data, "synthetic", item_names=movies)


@pytest.fixture(scope="session")
def histories(dataset):
    """The table of users 0 to 255; the model knows none of the items of user 3."""
    users, items = dataset.test.fold_in[:256].nonzero()
    table = pd.DataFrame({"userId": users, "movieId": dataset.item_ids[items]})
    table.loc[table.userId == 3, "movieId"] += 10**6
    return table
