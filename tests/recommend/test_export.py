"""The exported model, loaded without this package, returns the same items as --recommend."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers import run_main, run_prepare

# One model is exported for all.
pytestmark = pytest.mark.xdist_group("export")

ASK = """
import json, sys
sys.modules["vae"] = None  # from here on, importing it fails
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
signature = model.signatures[sys.argv[2]]
for inputs in json.load(sys.stdin):
    inputs = inputs if isinstance(inputs, dict) else {"histories": inputs}
    dtype = signature.inputs[0].dtype
    answer = signature(**{name: tf.constant(rows, dtype) for name, rows in inputs.items()})
    items = answer["items"].numpy().tolist()
    if answer["items"].dtype == tf.string:
        items = [[item.decode() for item in row] for row in items]
    others = [answer[name].numpy().tolist() for name in ("scores", "known_items")]
    print(json.dumps([items, *others], allow_nan=False))
"""


def ask(folder, signature, *batches, cwd):
    """Loads the model in a process that cannot import this package, and asks it."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(folder), signature],
        input=json.dumps(batches), cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()[-len(batches) :]]


def padded(histories, padding_value):
    longest = max(map(len, histories))
    return [[*history, *[padding_value] * (longest - len(history))] for history in histories]


@pytest.fixture(scope="session")
def histories(dataset):
    """Raw ids of 256 held-out users, one of whom has no item that the model knows."""
    fold_in = dataset.test.fold_in[:256]
    raw = [dataset.item_ids[fold_in[user].indices].tolist() for user in range(256)]
    raw[3] = [10**9]
    return raw


@pytest.fixture(scope="session")
def exported(on_model, histories, tmp_path_factory):
    """The folder of an exported model, and what --recommend answers for the same users."""
    folder = tmp_path_factory.mktemp("exported")
    rows = [(user, item) for user, items in enumerate(histories) for item in items]
    pd.DataFrame(rows, columns=["userId", "movieId"]).to_csv(folder / "h.csv", index=False)
    done = on_model(
        "--test", "--export", folder / "model", "--results_dir", folder / "results",
        "--recommend", folder / "h.csv", "--output", folder / "r.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "model", pd.read_csv(folder / "r.csv")


def assert_same(answer, rows, users):
    items, scores, _ = answer
    assert len(items) == len(users)
    for user, mine, score in zip(users, items, scores, strict=True):
        expected = rows[rows.userId == user]
        assert mine == expected.movieId.tolist()
        np.testing.assert_allclose(score, expected.score, atol=1e-4)


def test_it_returns_the_same_top_100_for_one_user_and_for_256(exported, histories, tmp_path):
    folder, rows = exported
    one, all_users = ask(
        folder, "serving_default", [histories[0]], padded(histories, -1), cwd=tmp_path
    )
    assert len(one[0][0]) == 100
    assert_same(one, rows, [0])
    assert_same(all_users, rows, range(256))
    assert all_users[2] == [0 if user == 3 else len(items) for user, items in enumerate(histories)]


def test_no_operation_needs_a_gradient_that_other_programs_lack(exported):
    assert b"_gradient_op_type" not in (exported[0] / "saved_model.pb").read_bytes()


def test_repeated_and_unknown_items_change_nothing(exported, histories, tmp_path):
    folder, rows = exported
    twice = [-1, *histories[5], 10**9, *histories[5][::-1]]
    (answer,) = ask(folder, "serving_default", [twice], cwd=tmp_path)
    assert_same(answer, rows, [5])
    assert answer[2] == [len(histories[5])]


def test_the_columns_signature_takes_and_returns_item_indices(
    exported, histories, dataset, tmp_path
):
    folder, rows = exported
    indices = [np.searchsorted(dataset.item_ids, histories[user]).tolist() for user in (0, 7)]
    (answer,) = ask(folder, "columns", padded(indices, -1), cwd=tmp_path)
    ids = pd.read_csv(folder / "item_ids.csv").set_index("column").item_id
    assert_same(([ids[row].tolist() for row in answer[0]], *answer[1:]), rows, [0, 7])


@pytest.mark.slow
def test_the_columns_signature_converts_to_onnx_and_returns_the_same(exported, dataset, tmp_path):
    folder, _ = exported
    convert = (
        "-m", "tf2onnx.convert", "--saved-model", folder, "--signature_def", "columns",
        "--opset", "17", "--output", tmp_path / "model.onnx",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, *map(str, convert)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    import onnxruntime  # not above: make test does without it

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    indices = [row.indices.tolist() for row in dataset.test.fold_in[:256]]
    indices[3] = [-1]
    answers = session.run(["items", "scores"], {"histories": np.array(padded(indices, -1))})
    (expected,) = ask(folder, "columns", padded(indices, -1), cwd=tmp_path)
    np.testing.assert_array_equal(answers[0], expected[0])
    np.testing.assert_allclose(answers[1], expected[1], atol=1e-4)


def test_the_model_card_has_data_flags_metrics_and_versions(exported, dataset):
    card = (exported[0] / "model_card.md").read_text()
    results = json.loads((exported[0].parent / "results/results.json").read_text())
    for entry in (
        dataset.fingerprint, "| hidden_dim | 64 |", "| TensorFlow | 2.", "| checkpoint | ",
        f"| test_ndcg@100 | {results['test_ndcg@100']:.5f} |", "int64 item ids",
    ):  # fmt: skip
        assert entry in card


def test_text_ids_and_bfloat16_are_exported_too(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"u{user}", f"film {item}") for user in range(60) for item in rng.choice(30, 8, False)]
    pd.DataFrame(rows, columns=["who", "what"]).to_csv(tmp_path / "plays.csv", index=False)
    data = ("--data_dir", tmp_path, "--dataset", "plays")
    done = run_prepare(
        *data, "--ratings", tmp_path / "plays.csv", "--user_col", "who",
        "--item_col", "what", "--rating_col", "none", "--heldout_users", 10,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run_main(
        "--train", *data, "--epochs", 2, "--hidden_dim", 8, "--latent_dim", 4,
        "--export", tmp_path / "model", "--export_dtype", "bfloat16",
        "--log_path", tmp_path / "log",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = ["film 1", "film 2", "", "who?"]
    everything = [f"film {item}" for item in range(30)]
    (answer,) = ask(
        tmp_path / "model", "serving_default", padded([seen, everything], ""), cwd=tmp_path
    )
    items, scores, known = answer
    assert set(items[0][:28]) == set(everything) - set(seen)
    # Nothing is left to recommend: empty ids, and scores that JSON can carry.
    assert items[0][28:] == ["", ""]
    assert set(items[1]) == {""}
    assert set(scores[1]) == {float(np.finfo(np.float32).min)}
    assert known == [2, 30]
    assert "bfloat16" in (tmp_path / "model/model_card.md").read_text()
    rules = {"allow": [["", ""], ["film 3", "who?"]], "deny": [[items[0][0]]]}
    (answer,) = ask(
        tmp_path / "model", "filtered", {"histories": [seen, seen], **rules}, cwd=tmp_path
    )
    assert answer[0][0] == [*items[0][1:28], "", "", ""]
    assert answer[0][1] == ["film 3", *[""] * 29]
