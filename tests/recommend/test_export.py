"""The exported model, loaded without this package, returns the same items as --recommend."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow.compat.v1 as tf
from helpers import output_of, run_main, run_prepare
from recommend.expected import USERS, K, assert_ranking, best, best_filtered, mask, random_filter

from vae.recommend.export import padding_value_of

# One model is exported for all.
pytestmark = pytest.mark.xdist_group("export")

ASK = """
import json, sys
sys.modules["vae"] = None  # from here on, importing it fails
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
for name, inputs in json.load(sys.stdin):
    signature = model.signatures[name]
    dtype = signature.inputs[0].dtype
    answer = signature(**{name: tf.constant(rows, dtype) for name, rows in inputs.items()})
    items = answer["items"].numpy().tolist()
    if answer["items"].dtype == tf.string:
        items = [[item.decode() for item in row] for row in items]
    others = [answer[name].numpy().tolist() for name in ("scores", "known_items")]
    print(json.dumps([items, *others], allow_nan=False))
"""


def ask_without_package(folder, *queries, cwd):
    """Answers to (signature, inputs) of a process that cannot import this package."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(folder)],
        input=json.dumps(queries), cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()[-len(queries) :]]


def ask(folder, name, **inputs):
    """The outputs of a signature."""
    with tf.Graph().as_default(), tf.Session() as session:
        model = tf.saved_model.load(session, ["serve"], str(folder))
        signature = model.signature_def[name]
        fed = {signature.inputs[key].name: value for key, value in inputs.items()}
        assert set(signature.inputs) == set(inputs)
        return session.run({key: value.name for key, value in signature.outputs.items()}, fed)


def padded(table, padding_value=-1, users=USERS):
    """(users, longest) ids of the users' rows of a table, padded; of one row for all users."""
    if "userId" in table:
        lists = [table[table.userId == user].movieId.tolist() for user in range(users)]
    else:
        lists = [table.movieId.tolist()]
    longest = max(map(len, lists))
    return [[*row, *[padding_value] * (longest - len(row))] for row in lists]


def indices_of(dataset, ids):
    """Item indices, -1 for unknown ids."""
    return np.where(np.isin(ids, dataset.item_ids), np.searchsorted(dataset.item_ids, ids), -1)


@pytest.fixture(scope="module")
def exported(on_model, histories, tmp_path_factory):
    """The folder of an exported model, and what --recommend answers for the same users."""
    folder = tmp_path_factory.mktemp("exported")
    histories.to_csv(folder / "h.csv", index=False)
    written = ("--export", folder / "model", "--results_dir", folder / "results")
    lists = ("--recommend", folder / "h.csv", "--output", folder / "r.csv")
    output_of(on_model("--test", *written, *lists))
    return folder / "model", pd.read_csv(folder / "r.csv")


def assert_same(answer, rows, users):
    items, scores, _ = answer
    assert len(items) == len(users)
    for user, mine, score in zip(users, items, scores, strict=True):
        expected = rows[rows.userId == user]
        assert len(mine) == len(expected)
        assert_ranking(mine, score, expected.movieId.tolist(), expected.score)


def test_it_returns_the_same_top_100_whatever_the_batch_and_the_ids(
    exported, histories, dataset, tmp_path
):
    folder, rows = exported
    mine = histories.groupby("userId").movieId.apply(list)
    # Repeated and unknown items change nothing.
    twice = [-1, *mine[5], 10**9, *mine[5][::-1]]
    indices = indices_of(dataset, padded(histories)).tolist()
    one, many, repeated, by_index = ask_without_package(
        folder,
        ("serving_default", {"histories": [mine[0]]}),
        ("serving_default", {"histories": padded(histories, users=256)}),
        ("serving_default", {"histories": [twice]}),
        ("item_indices", {"histories": indices}),
        cwd=tmp_path,
    )
    assert len(one[0][0]) == 100
    assert_same(one, rows, [0])
    assert_same(many, rows, range(256))
    assert many[2] == [0 if user == 3 else len(items) for user, items in mine.items()]
    assert_same(repeated, rows, [5])
    assert repeated[2] == [len(mine[5])]
    ids = pd.read_csv(folder / "item_ids.csv").set_index("item_index").item_id
    assert_same(([ids[row].tolist() for row in by_index[0]], *by_index[1:]), rows, range(USERS))


def test_no_operation_needs_a_gradient_that_other_programs_lack(exported):
    assert b"_gradient_op_type" not in (exported[0] / "saved_model.pb").read_bytes()


@pytest.mark.slow
def test_the_signature_of_item_indices_converts_to_onnx_and_returns_the_same(
    exported, histories, dataset, weights, tmp_path
):
    convert = (
        "-m", "tf2onnx.convert", "--saved-model", exported[0], "--signature_def", "item_indices",
        "--opset", "17", "--output", tmp_path / "model.onnx",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, *map(str, convert)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    import onnxruntime  # not above: make test does without it

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    indices = indices_of(dataset, padded(histories, users=256))
    items, scores = session.run(["items", "scores"], {"histories": indices})
    expected = ask(exported[0], "item_indices", histories=indices)
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-4)
    for user, found in enumerate(dataset.item_ids[items].tolist()):
        seen = mask(dataset, histories, user)
        ids, logits = best(dataset, weights, seen, seen, len(found) + 1)
        assert_ranking(found, scores[user], ids.tolist(), logits)


def test_the_model_card_has_data_flags_metrics_versions_and_signatures(exported, dataset):
    card = (exported[0] / "model_card.md").read_text()
    results = json.loads((exported[0].parent / "results/results.json").read_text())
    for entry in (
        "# Model card: recommendations for synthetic\n", "Liang et al. 2018",
        f"| dataset fingerprint | {dataset.fingerprint} |", "| hidden_dim | 64 |",
        "| TensorFlow | 2.", "| checkpoint | ", "; 64 hidden units (tanh), 16 latent dimensions |",
        f"| test_ndcg@100 | {results['test_ndcg@100']:.5f} |", "int64 item ids", "with\n`-1`;",
        "(users, 100)", "`filtered`", "`deny`", "`item_indices`",
    ):  # fmt: skip
        assert entry in card
    first, second = (part.partition("\n\n")[0] for part in card.split("|---|---|\n")[1:])
    for line in (first + "\n" + second.rstrip()).splitlines():
        assert line.startswith("| ")
        assert line.endswith(" |")
    assert "\n\n\n" not in card


def test_text_ids_and_bfloat16_are_exported_too(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"u{user}", f"film {item}") for user in range(60) for item in rng.choice(30, 8, False)]
    pd.DataFrame(rows, columns=["who", "what"]).to_csv(tmp_path / "plays.csv", index=False)
    data = ("--data_dir", tmp_path, "--dataset", "plays")
    columns = ("--user_col", "who", "--item_col", "what", "--rating_col", "none")
    ratings = ("--ratings", tmp_path / "plays.csv", "--heldout_users", 10)
    output_of(run_prepare(*data, *ratings, *columns))
    tiny = ("--epochs", 2, "--hidden_dim", 8, "--latent_dim", 4, "--log_path", tmp_path / "log")
    export = ("--export", tmp_path / "model", "--export_dtype", "bfloat16")
    output_of(run_main("--train", *data, *tiny, *export))
    seen = ["film 1", "film 2", "", "who?"]
    everything = [f"film {item}" for item in range(30)]
    histories = [[*seen, *[""] * 26], everything]
    filters = {"allow": [["", ""], ["film 3", "who?"]], "deny": [["film 5"]]}
    (items, scores, known), filtered = ask_without_package(
        tmp_path / "model",
        ("serving_default", {"histories": histories}),
        ("filtered", {"histories": [seen, seen], **filters}),
        cwd=tmp_path,
    )
    assert set(items[0][:28]) == set(everything) - set(seen)
    # Nothing is left to recommend: empty ids, and scores that JSON can carry.
    assert items[0][28:] == ["", ""]
    assert set(items[1]) == {""}
    assert set(scores[1]) == {float(np.finfo(np.float32).min)}
    assert known == [2, 30]
    card = (tmp_path / "model/model_card.md").read_text()
    assert "| weights of the last layer | bfloat16 |" in card
    assert 'string item ids, padded with\n`""`;' in card
    assert filtered[0][0] == [item for item in items[0] if item != "film 5"] + [""]
    assert filtered[0][1] == ["film 3", *[""] * 29]


@pytest.mark.parametrize("by_user", [False, True])
def test_the_filters_are_those_of_the_command_line(exported, dataset, weights, histories, by_user):
    rng = np.random.default_rng(3)
    allow, deny = (random_filter(dataset, rng, 0.3, by_user) for _ in range(2))
    inputs = {"histories": histories, "allow": allow, "deny": deny}
    answer = ask(exported[0], "filtered", **{name: padded(rows) for name, rows in inputs.items()})
    for user in range(USERS):
        # A row of padding alone allows everything, where the command line allows nothing.
        allowed = None if by_user and user == 5 else allow
        items, scores = best_filtered(dataset, weights, histories, user, allowed, deny)
        found, left = answer["items"][user, :K].tolist(), len(items)
        assert found[left:] == [-1] * (K - left)
        assert_ranking(found[:left], answer["scores"][user, :left], items.tolist(), scores)


def test_filters_without_effect_answer_like_the_plain_signatures(exported, dataset, histories):
    ids = padded(histories)
    indices = indices_of(dataset, ids)
    nothing, padding = np.full((1, 0), -1), np.full((USERS, 2), -1)
    for plain, filtered, rows in (
        ("serving_default", "filtered", ids),
        ("item_indices", "filtered_item_indices", indices),
    ):
        found = ask(exported[0], filtered, histories=rows, allow=padding, deny=nothing)
        for key, value in ask(exported[0], plain, histories=rows).items():
            np.testing.assert_array_equal(found[key], value)
    allow, deny = np.array([[0, 1, 2, 5000]]), np.array([[1, -1]])
    only = ask(exported[0], "filtered_item_indices", histories=indices, allow=allow, deny=deny)
    assert set(only["items"].ravel()) <= {0, 2, -1}
    only = ask(exported[0], "filtered", histories=ids, allow=np.array([[10**9]]), deny=nothing)
    assert (only["items"] == padding_value_of(dataset.item_ids)).all()


@pytest.mark.parametrize("signature", ["filtered", "filtered_item_indices"])
@pytest.mark.parametrize("name", ["allow", "deny"])
@pytest.mark.parametrize(("users", "rows"), [(1, 3), (3, 2), (3, 0)])
def test_filters_of_another_number_of_users_are_refused(exported, signature, name, users, rows):
    inputs = {other: np.full((1, 2), -1) for other in ("allow", "deny")}
    inputs |= {"histories": np.full((users, 2), 5), name: np.full((rows, 2), -1)}
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name} needs one row for all"):
        ask(exported[0], signature, **inputs)
