"""--allow and --deny against brute force: on the command line, in Python, in the exported model."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow.compat.v1 as tf
from helpers import log_lines, run_main
from models.reference import brute_force
from scipy.sparse import csr_matrix

import vae
from vae.baselines.popularity import popularity_scores
from vae.errors import UserError
from vae.models.graph.inference_graph import ITEM_WEIGHTS
from vae.recommend.cold_start import popular_items
from vae.recommend.export import padding_value_of

USERS, K = 12, 20


@pytest.fixture(scope="session")
def recommender(run, demo_data):
    return vae.Recommender.load(run[0] / "ckpt", demo_data, "synthetic")


@pytest.fixture(scope="session")
def histories(dataset):
    """Rows of users 0 to 11; the model knows none of the items of user 3."""
    rows = [
        (user, item)
        for user in range(USERS)
        for item in dataset.item_ids[dataset.test.fold_in[user].indices]
    ]
    table = pd.DataFrame(rows, columns=["userId", "movieId"])
    table.loc[table.userId == 3, "movieId"] += 10**6
    return table


def lists(dataset, rng, share, by_user):
    """A random table of items, or of users and items, with an unknown id."""
    users = [user for user in range(USERS) if user != 5] if by_user else [0]
    rows = [(user, item) for user in users for item in dataset.item_ids if rng.random() < share]
    table = pd.DataFrame([*rows, (1, 10**8)], columns=["userId", "movieId"])
    return table if by_user else table[["movieId"]]


def mask(dataset, table, user):
    """(I,) bool, the items that a table lists for a user."""
    if "userId" in table:
        table = table[table.userId == user]
    return np.isin(dataset.item_ids, table.movieId)


def expected(dataset, weights, histories, user, allow, deny):
    """The raw ids and the scores of the best items by brute force over all of them."""
    seen = mask(dataset, histories, user)
    masked = seen.copy()
    if allow is not None:
        masked |= ~mask(dataset, allow, user)
    if deny is not None:
        masked |= mask(dataset, deny, user)
    if seen.any():
        best, scores = brute_force(weights, seen.astype(int), masked.astype(int), K)
    else:
        popular = popularity_scores(dataset.train)
        best = np.flatnonzero(~masked)
        best = best[np.argsort(-popular[best], kind="stable")][:K]
        scores = popular[best]
    return dataset.item_ids[best], scores


def assert_equal(rows, dataset, weights, histories, allow, deny):
    """The rows are those of brute force; returns the number of users without any."""
    empty = 0
    for user in range(USERS):
        items, scores = expected(dataset, weights, histories, user, allow, deny)
        mine = rows[rows.userId == user]
        np.testing.assert_allclose(mine.score, scores, atol=1e-4)
        score_of = dict(zip(items.tolist(), scores, strict=True))
        # Items whose scores differ by rounding alone may change places.
        np.testing.assert_allclose([score_of[item] for item in mine.movieId], scores, atol=1e-4)
        assert mine["rank"].tolist() == list(range(1, len(items) + 1))
        empty += not len(items)
    return empty


CASES = [(0.05, None), (None, 0.5), (0.3, 0.3)]


@pytest.mark.parametrize(("allowed", "denied"), CASES)
@pytest.mark.parametrize(
    ("allow_by_user", "deny_by_user"), [(False, False), (True, True), (True, False)]
)
def test_recommendations_under_rules_are_those_of_brute_force(
    recommender, dataset, weights, histories, allowed, denied, allow_by_user, deny_by_user
):
    rng = np.random.default_rng(0)
    allow = None if allowed is None else lists(dataset, rng, allowed, allow_by_user)
    deny = None if denied is None else lists(dataset, rng, denied, deny_by_user)
    rows = recommender.recommend(histories, K, allow, deny)
    empty = assert_equal(rows, dataset, weights, histories, allow, deny)
    # User 5 is not among those of a list by user: nothing is allowed to them.
    assert empty == (allow is not None and allow_by_user)


def test_the_command_line_reads_the_rules_counts_and_logs(
    on_model, dataset, weights, histories, tmp_path
):
    rng = np.random.default_rng(1)
    allow, deny = (lists(dataset, rng, share, by) for share, by in ((0.2, True), (0.4, False)))
    allow.to_parquet(tmp_path / "allow.parquet")
    deny.to_csv(tmp_path / "deny.csv.gz", index=False)
    histories.to_csv(tmp_path / "h.csv", index=False)
    code, out, err = on_model(
        "--recommend", tmp_path / "h.csv", "--output", tmp_path / "r.csv", "--top_results", K,
        "--allow", tmp_path / "allow.parquet", "--deny", tmp_path / "deny.csv.gz",
        "--batch_size_validation", 5, "--log_path", tmp_path / "log",
    )  # fmt: skip
    assert code == 0, err
    known = len(deny) - 1
    assert f"deny.csv.gz: {known:,} items for everybody; items unknown to the model, skip" in out
    assert "allow.parquet: " in out
    assert "Users to whom nothing is left to recommend: 1." in out
    assert log_lines(tmp_path / "log")[-1]["data"]["recommend_empty_users"] == 1
    rows = pd.read_csv(tmp_path / "r.csv")
    assert assert_equal(rows, dataset, weights, histories, allow, deny) == 1


def test_python_and_the_command_line_recommend_the_same(recommender, on_model, histories, tmp_path):
    histories.to_csv(tmp_path / "h.csv", index=False)
    (tmp_path / "d.csv").write_text(f"movieId\n{histories.movieId[0]}\n")
    deny = ("--deny", tmp_path / "d.csv")
    code, _, err = on_model(
        "--recommend", tmp_path / "h.csv", "--output", tmp_path / "r.parquet",
        "--top_results", 5, *deny,
    )  # fmt: skip
    assert code == 0, err
    rows = recommender.recommend(tmp_path / "h.csv", 5, deny=[histories.movieId[0]])
    pd.testing.assert_frame_equal(
        rows, pd.read_parquet(tmp_path / "r.parquet"), check_dtype=False, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("--deny", "item\n1\n", "--deny here/list.csv: has no column 'movieId' but 'item'"),
        (
            "--allow",
            "movieId\n-5\n",
            "--allow here/list.csv: no id in its column 'movieId' is an item of synthetic",
        ),
        ("--allow", None, "--allow here/list.csv: file not found"),
    ],
)
def test_unusable_rules_are_refused_before_anything_is_computed(
    on_model, tmp_path, monkeypatch, file, text, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    if text is not None:
        (tmp_path / "here/list.csv").write_text(text)
    code, out, err = on_model("--recommend", "--output", "r.csv", file, "here/list.csv")
    assert code == 2
    assert sentence in err
    assert "Loaded checkpoint" not in out


def test_rules_need_recommendations_and_are_not_overwritten_by_them():
    code, _, err = run_main("--test", "--checkpoint_dir", "c", "--deny", "d.csv")
    assert (code, "--deny has no effect without --recommend" in err) == (2, True)
    code, _, err = run_main(
        "--recommend", "--checkpoint_dir", "c", "--output", "d.csv", "--allow", "d.csv"
    )
    assert (code, "would overwrite the file of --allow" in err) == (2, True)


@pytest.mark.parametrize("excluded_share", [None, 0.4, 1.0])
@pytest.mark.parametrize("by_user", [False, True])
def test_popular_items_under_rules_are_those_of_a_sort(dataset, excluded_share, by_user):
    rng = np.random.default_rng(2)
    train, seen = dataset.train, dataset.test.fold_in[:9]
    excluded = None if excluded_share is None else rng.random(train.shape[1]) < excluded_share
    allowed = dataset.validation.fold_in[:9] + dataset.test.targets[:9] if by_user else None
    ranking = popular_items(train, seen, 7, excluded, allowed)
    popularity = popularity_scores(train)
    for user in range(9):
        masked = seen[user].toarray()[0] != 0
        if excluded is not None:
            masked |= excluded
        if allowed is not None:
            masked |= allowed[user].toarray()[0] == 0
        left = np.flatnonzero(~masked)
        best = left[np.argsort(-popularity[left], kind="stable")][:7].tolist()
        assert ranking[user].tolist() == [*best, *[-1] * (7 - len(best))]


@pytest.fixture(scope="session")
def exported(on_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    code, _, err = on_model("--export", folder / "model", "--top_results", K)
    assert code == 0, err
    return folder / "model"


def padded(rows, padding_value, users=USERS):
    """(users, longest) ids of the users' rows of a table, padded; of one row for everybody."""
    if "userId" in rows:
        lists = [rows[rows.userId == user].movieId.tolist() for user in range(users)]
    else:
        lists = [rows.movieId.tolist()]
    longest = max(map(len, lists))
    return np.array([[*row, *[padding_value] * (longest - len(row))] for row in lists], np.int64)


def ask(folder, name, **inputs):
    with tf.Graph().as_default(), tf.Session() as session:
        model = tf.saved_model.load(session, ["serve"], str(folder))
        signature = model.signature_def[name]
        fed = {signature.inputs[key].name: value for key, value in inputs.items()}
        assert set(signature.inputs) == set(inputs)
        return session.run({key: value.name for key, value in signature.outputs.items()}, fed)


@pytest.mark.xdist_group("export")
@pytest.mark.parametrize("by_user", [False, True])
def test_the_exported_filters_are_those_of_the_command_line(
    exported, recommender, dataset, weights, histories, by_user
):
    rng = np.random.default_rng(3)
    allow, deny = (lists(dataset, rng, 0.3, by_user) for _ in range(2))
    answer = ask(
        exported, "filtered", histories=padded(histories, -1), allow=padded(allow, -1),
        deny=padded(deny, -1),
    )  # fmt: skip
    for user in range(USERS):
        # A row of padding alone allows everything, where the command line allows nothing.
        everything = by_user and user == 5
        items, scores = expected(
            dataset, weights, histories, user, None if everything else allow, deny
        )
        assert answer["items"][user].tolist() == [*items, *[-1] * (K - len(items))]
        np.testing.assert_allclose(answer["scores"][user][: len(items)], scores, atol=1e-4)


@pytest.mark.xdist_group("export")
def test_filters_by_item_index_and_without_effect_are_those_of_the_plain_signatures(
    exported, dataset, histories
):
    ids = padded(histories, -1)
    indices = np.where(np.isin(ids, dataset.item_ids), np.searchsorted(dataset.item_ids, ids), -1)
    nothing = np.full((1, 0), -1)
    padding = np.full((USERS, 2), -1)
    for name, rows in (("serving_default", ids), ("columns", indices)):
        plain = ask(exported, name, histories=rows)
        filtered = ask(
            exported, {"serving_default": "filtered"}.get(name, "filtered_columns"),
            histories=rows, allow=padding, deny=nothing,
        )  # fmt: skip
        for key, value in plain.items():
            np.testing.assert_array_equal(filtered[key], value)
    only = ask(
        exported, "filtered_columns", histories=indices, allow=np.array([[0, 1, 2, 5000]]),
        deny=np.array([[1, -1]]),
    )  # fmt: skip
    assert set(only["items"].ravel()) <= {0, 2, -1}
    only = ask(exported, "filtered", histories=ids, allow=np.array([[10**9]]), deny=nothing)
    assert (only["items"] == padding_value_of(dataset.item_ids)).all()


@pytest.mark.xdist_group("export")
@pytest.mark.parametrize("signature", ["filtered", "filtered_columns"])
@pytest.mark.parametrize("name", ["allow", "deny"])
@pytest.mark.parametrize(("users", "rows"), [(1, 3), (3, 2), (3, 0)])
def test_exported_filters_of_another_number_of_users_are_refused(
    exported, signature, name, users, rows
):
    inputs = {other: np.full((1, 2), -1) for other in ("allow", "deny")}
    inputs |= {"histories": np.full((users, 2), 5), name: np.full((rows, 2), -1)}
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name} needs one row for all"):
        ask(exported, signature, **inputs)


def test_the_model_card_names_the_filters(exported):
    card = (exported / "model_card.md").read_text()
    assert "`filtered`" in card
    assert "`deny`" in card


def test_importing_the_package_does_not_import_tensorflow():
    code = (
        "import sys, vae; assert 'tensorflow' not in sys.modules and 'pandas' not in sys.modules; "
        "import json; print(json.dumps(hasattr(vae, 'nothing')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False


def test_python_calls_that_cannot_work_are_one_sentence(recommender, histories, run, demo_data):
    with pytest.raises(UserError, match="has no column 'userId' but 'movieId'; histories need"):
        recommender.recommend(histories[["movieId"]])
    with pytest.raises(UserError, match="k is 0; pass an integer of at least 1"):
        recommender.recommend(histories, 0)
    with pytest.raises(UserError, match="item terminator: synthetic has no such item"):
        recommender.similar_items("terminator")
    with pytest.raises(UserError, match="checkpoint is 'newest'; pass 'best' or 'latest'"):
        vae.Recommender.load(run[0] / "ckpt", demo_data, "synthetic", "newest")
    with pytest.raises(UserError, match="holds no checkpoint"):
        vae.Recommender.load(demo_data, demo_data, "synthetic")
    mixed = histories.astype({"movieId": object})
    mixed.loc[0, "movieId"] = "seven"
    with pytest.raises(UserError, match="the histories: cannot be read"):
        recommender.recommend(mixed)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"k": "5"}, "^k is '5'; pass an integer of at least 1"),
        ({"k": 2.5}, "^k is 2.5; pass an integer"),
        ({"k": float("inf")}, "^k is inf; pass an integer"),
        ({"k": None}, "^k is None; pass an integer"),
        ({"k": True}, "^k is True; pass an integer"),
        ({"explain": "2"}, "^explain is '2'; pass an integer of at least 0"),
        ({"deny": 13}, "^deny is 13; pass a list of item ids, or a table or file with the columns"),
        ({"deny": b"13"}, "^deny is b'13'; pass a list"),
        ({"allow": np.array(13)}, r"^allow is array\(13\); pass a list"),
        ({"allow": {"movieId": 3}}, "^allow is {'movieId': 3}; pass a list"),
        ({"deny": [[1, 2], [3]]}, "^deny the table: column 'movieId' has the type list"),
        ({"deny": [1j]}, "^deny the table: cannot be read .*; pass columns of integers, numbers"),
        ({"deny": [2**70]}, "^deny the table: cannot be read"),
        ({"histories": None}, "^histories is None; pass a list of item ids, or a table or file"),
        ({"histories": []}, "^the histories: no rows"),
        ({"histories": [1.5]}, "^the histories: column 'movieId', row 1: 1.5 is not an integer"),
        ({"histories": np.ones((2, 2))}, "^the histories: column 'movieId' has the type list"),
        ({"histories": csr_matrix(np.eye(3))}, "^the histories: c"),
        (
            {"histories": pd.DataFrame({"userId": 1, "movieId": [1j]})},
            "^the histories: cannot be read .*complex128.*; pass columns of integers",
        ),
        (
            {"histories": pd.DataFrame({"userId": 1, "movieId": pd.arrays.SparseArray([1])})},
            "^the histories: cannot be read .*Sparse.*; pass columns of integers",
        ),
    ],
)
def test_arguments_that_cannot_be_used_say_what_to_pass(recommender, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        recommender.recommend(**{"histories": [1, 2]} | arguments)


def test_tables_of_arrow_lists_of_items_and_whole_numbers_are_taken(
    recommender, histories, dataset
):
    expected = recommender.recommend(histories, 3)
    for k, table in ((np.int64(3), pa.Table.from_pandas(histories)), (3.0, histories)):
        pd.testing.assert_frame_equal(recommender.recommend(table, k), expected)
    ids = histories.movieId[histories.userId == 2]
    of_user = expected[expected.userId == 2].drop(columns="userId").reset_index(drop=True)
    for items in (ids, ids.tolist(), ids.to_numpy(), set(ids), [str(item) for item in ids]):
        rows = recommender.recommend(items, 3)
        assert set(rows.userId) == {0}
        pd.testing.assert_frame_equal(rows.drop(columns="userId"), of_user, rtol=1e-4)
    item = dataset.item_ids[5]
    assert recommender.similar_items(float(item), 2.0).equals(recommender.similar_items(item, 2))


def test_a_blend_explains_nothing(recommender, dataset):
    weights = recommender.model.weights | {ITEM_WEIGHTS: np.zeros((1, 1), np.float32)}
    blended = vae.Recommender(
        recommender._config, dataset, replace(recommender.model, weights=weights)
    )
    with pytest.raises(UserError, match="explain explains the model alone"):
        blended.recommend([1], 3, explain=1)


def test_a_list_of_items_may_be_any_collection_or_a_file(recommender, histories, tmp_path):
    ids = histories.movieId.iloc[:30].tolist()
    (tmp_path / "list.csv").write_text("\n".join(["movieId", *map(str, ids)]))
    tables = [
        recommender.recommend(histories, 3, items, items[:0] if isinstance(items, list) else None)
        for items in (ids, set(ids), pd.Series(ids), np.array(ids), str(tmp_path / "list.csv"))
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])
    assert set(tables[0].movieId) <= set(ids)


def test_similar_items_are_a_table_with_titles(run, demo_data, dataset):
    titled = vae.Recommender.load(
        run[0] / "ckpt", demo_data, "synthetic", "latest",
        demo_data / "synthetic/extracted/synthetic/movies.csv",
    )  # fmt: skip
    rows = titled.similar_items(dataset.item_ids[5], 3)
    assert list(rows) == ["movieId", "cosine", "title"]
    assert len(rows) == 3
    assert rows.title.str.startswith("Film ").all()
    assert (np.diff(rows.cosine) <= 0).all()
