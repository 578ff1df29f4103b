"""The approximate index of docs/recommending.md finds what RecVAE recommends."""

import re

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, flags, output_of, run_main

from vae.load.store import open_dataset

BLOCK = re.compile(r"^```python\n(import faiss.*?)^```", re.DOTALL | re.MULTILINE)
TEXT = (ROOT / "docs/recommending.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def exported(demo_data, tmp_path_factory):
    """A folder with what a RecVAE wrote for the test users: both vectors, all scores."""
    folder = tmp_path_factory.mktemp("exported")
    test = open_dataset(demo_data, "synthetic").test
    users, items = test.fold_in.nonzero()
    ids = open_dataset(demo_data, "synthetic").item_ids
    table = pd.DataFrame({"userId": test.user_ids[users], "movieId": ids[items]})
    table.to_csv(folder / "histories.csv", index=False)
    model = ("--model", "recvae", "--hidden_dim", 64, "--latent_dim", 16, "--lr", 0.005)
    training = ("--train", "--epochs", 10, "--batch_size_train", 200, "--validation_step", 10)
    outputs = {
        "--recommend": "histories.csv", "--output": "recommended.csv",
        "--export_users": "users.parquet", "--export_items": "items.parquet",
    }  # fmt: skip
    named = [word for flag, name in outputs.items() for word in (flag, folder / name)]
    ranking = ("--top_results", len(ids))
    output_of(run_main(*training, *model, *ranking, *named, *flags(demo_data, folder)))
    return folder


def test_a_score_of_a_linear_decoder_is_the_inner_product_and_the_bias(exported):
    users, items = (pd.read_parquet(exported / f"{name}.parquet") for name in ("users", "items"))
    scores = np.stack(users.vector) @ np.stack(items.vector).T + items.bias.to_numpy()
    rows = pd.read_csv(exported / "recommended.csv")
    assert len(rows) > 500_000
    at = pd.Index(users.id).get_indexer(rows.userId), pd.Index(items.id).get_indexer(rows.movieId)
    np.testing.assert_allclose(scores[at], rows.score, atol=1e-4)


def test_the_index_of_the_document_finds_what_is_recommended(exported, monkeypatch):
    pytest.importorskip("faiss", reason="FAISS is not installed; run 'make test-all'")
    monkeypatch.chdir(exported)
    (code,) = BLOCK.findall(TEXT)
    names = {}
    exec(code, names)
    assert all(len(items) == 20 for items in names["found"].values())
    promised = float(re.search(r"`recall` is (\d\.\d+):", TEXT)[1])
    assert names["recall"] == pytest.approx(promised, abs=0.01)
