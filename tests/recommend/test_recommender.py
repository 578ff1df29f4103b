"""vae.Recommender: filters against brute force, what its arguments may be, and what it refuses."""

import gc
import json
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from recommend.expected import USERS, K, assert_filtered, random_filter
from scipy.sparse import csr_matrix

import vae
from vae.config import Execution
from vae.errors import UserError
from vae.models.graph.inference_graph import ITEM_WEIGHTS
from vae.utils.distributed import Workers


@pytest.fixture(scope="session")
def few(histories):
    return histories[histories.userId < USERS].reset_index(drop=True)


def with_weights(recommender, **weights):
    """The recommender with other weights."""
    model = replace(recommender.model, weights={**recommender.model.weights, **weights})
    worker = Workers()
    return vae.Recommender(recommender.dataset, model, Execution(), 10, worker)


@pytest.mark.parametrize(("allowed", "denied"), [(0.05, None), (None, 0.5), (0.3, 0.3)])
@pytest.mark.parametrize(
    ("allow_by_user", "deny_by_user"), [(False, False), (True, True), (True, False)]
)
def test_filtered_recommendations_are_those_of_brute_force(
    recommender, dataset, weights, few, allowed, denied, allow_by_user, deny_by_user
):
    rng = np.random.default_rng(0)
    allow = None if allowed is None else random_filter(dataset, rng, allowed, allow_by_user)
    deny = None if denied is None else random_filter(dataset, rng, denied, deny_by_user)
    rows = recommender.recommend(few, K, allow, deny)
    empty = assert_filtered(rows, dataset, weights, few, allow, deny)
    # User 5 is not in a filter by user: nothing is allowed to them.
    assert empty == (allow is not None and allow_by_user)


def test_importing_the_package_does_not_import_tensorflow():
    code = (
        "import sys, vae; assert 'tensorflow' not in sys.modules and 'pandas' not in sys.modules; "
        "import json; print(json.dumps(hasattr(vae, 'nothing')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False


def test_calls_that_cannot_work_are_one_sentence(recommender, few, run, demo_data):
    with pytest.raises(UserError, match="has no column 'userId' but 'movieId'; histories need"):
        recommender.recommend(few[["movieId"]])
    with pytest.raises(UserError, match="k is 0; pass an integer of at least 1"):
        recommender.recommend(few, 0)
    with pytest.raises(UserError, match="item terminator: synthetic has no such item"):
        recommender.similar_items("terminator")
    with pytest.raises(UserError, match="checkpoint is 'newest'; pass 'best' or 'latest'"):
        vae.Recommender.load(run[0] / "ckpt", demo_data, "synthetic", "newest")
    with pytest.raises(UserError, match="blend is 'EASE'; pass 'ease', 'none' or None"):
        vae.Recommender.load(run[0] / "ckpt", demo_data, "synthetic", blend="EASE")
    with pytest.raises(UserError, match="data_dir is None; pass a path or a name"):
        vae.Recommender.load(run[0] / "ckpt", None)
    with pytest.raises(UserError, match="holds no checkpoint"):
        vae.Recommender.load(demo_data, demo_data, "synthetic")
    mixed = few.astype({"movieId": object})
    mixed.loc[0, "movieId"] = "seven"
    with pytest.raises(UserError, match="the histories: cannot be read"):
        recommender.recommend(mixed)
    blended = with_weights(recommender, **{ITEM_WEIGHTS: np.zeros((1, 1), np.float32)})
    with pytest.raises(UserError, match="explain explains the model alone"):
        blended.recommend([1], 3, explain=1)


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
        (
            {"histories": [1.5]},
            "^the histories: column 'movieId', row 1: 1.5 is not an exact",
        ),
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


def test_histories_may_be_tables_files_or_collections_and_numbers_of_any_type(
    recommender, few, tmp_path
):
    expected = recommender.recommend(few, 3)
    few.to_csv(tmp_path / "h.csv", index=False)
    tables = (pa.Table.from_pandas(few), few, tmp_path / "h.csv")
    for k, table in zip((np.int64(3), 3.0, 3), tables, strict=True):
        pd.testing.assert_frame_equal(recommender.recommend(table, k), expected)
    ids = few.movieId[few.userId == 2]
    of_user = expected[expected.userId == 2].drop(columns="userId").reset_index(drop=True)
    for items in (ids, ids.tolist(), ids.to_numpy(), set(ids), [str(item) for item in ids]):
        rows = recommender.recommend(items, 3)
        assert set(rows.userId) == {0}
        pd.testing.assert_frame_equal(rows.drop(columns="userId"), of_user, rtol=1e-4)


def test_a_filter_may_be_any_collection_or_a_file(recommender, few, tmp_path):
    ids = few.movieId.iloc[:30].tolist()
    (tmp_path / "list.csv").write_text("\n".join(["movieId", *map(str, ids)]))
    tables = [
        recommender.recommend(few, 3, items, items[:0] if isinstance(items, list) else None)
        for items in (ids, set(ids), pd.Series(ids), np.array(ids), str(tmp_path / "list.csv"))
    ]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])
    assert set(tables[0].movieId) <= set(ids)


def test_similar_items_are_a_table_with_titles(recommender, dataset):
    item = dataset.item_ids[5]
    rows = recommender.similar_items(float(item), 3.0)
    assert rows.equals(recommender.similar_items(item, 3))
    assert list(rows) == ["movieId", "cosine", "title"]
    assert len(rows) == 3
    assert rows.title.str.startswith("Film ").all()
    assert (np.diff(rows.cosine) <= 0).all()


def test_the_nearest_vectors_point_the_same_way_whatever_their_length(recommender, dataset):
    kernel = np.zeros((2, len(dataset.item_ids)), np.float32)
    kernel[:, :5] = [[1, 9, 1, 0, -1], [0, 1, 1, 1, 0]]
    other = with_weights(recommender, **{"decoder/items/kernel": kernel})
    rows = other.similar_items(dataset.item_ids[0], 5000)
    assert len(rows) == len(dataset.item_ids) - 1
    assert rows.movieId.tolist()[:2] == dataset.item_ids[1:3].tolist()
    assert rows.movieId.iloc[-1] == dataset.item_ids[4]
    found = rows.set_index("movieId").cosine[dataset.item_ids[1:6]]
    np.testing.assert_allclose(found, [9 / np.sqrt(82), np.sqrt(0.5), 0, -1, 0], atol=1e-6)


@pytest.fixture
def fresh(recommender):
    """The recommender without a session, closed after the test."""
    with with_weights(recommender) as recommender:
        yield recommender


def sizes(recommender):
    """The number of operations of each session that the recommender keeps."""
    kept = recommender._kept.values()
    return [len(inference.session.graph.get_operations()) for inference in kept]


def test_calls_in_turn_give_what_the_first_gave_and_add_nothing_to_the_graph(fresh, few):
    by_user = few.iloc[::2]
    calls = [
        {"k": 3},
        {"k": 50},
        {"k": 10**6},
        {"k": 3, "deny": few.movieId[:10].tolist()},
        {"k": 3, "allow": few.movieId[:40].tolist()},
        {"k": 3, "deny": by_user},
        {"k": 3, "allow": by_user},
        {"k": 3, "explain": 1},
        {"k": 2, "explain": 2, "allow": by_user},
    ]
    first = [fresh.recommend(few, **arguments) for arguments in calls]
    operations = sizes(fresh)
    assert len(operations) == 1, "all of them share the weights"
    for arguments, expected in [*zip(calls, first, strict=True)][::-1]:
        pd.testing.assert_frame_equal(fresh.recommend(few, **arguments), expected)
    fresh.recommend(few, k=7, deny=few.movieId[:11].tolist())
    assert sizes(fresh) == operations


def test_many_users_get_a_session_of_their_own_and_the_same_items(fresh, few, monkeypatch):
    expected = fresh.recommend(few, 3)
    monkeypatch.setattr("vae.recommend.recommender.FEW_USERS", 1)
    operations = sizes(fresh)
    pd.testing.assert_frame_equal(fresh.recommend(few, 3), expected, rtol=1e-4)
    assert sizes(fresh) == operations


def test_threads_that_call_at_once_get_what_one_thread_gets(fresh, recommender, few):
    users = [rows for _, rows in few.groupby("userId")]
    calls = [(rows, 3 + number % 5, None, None, number % 2) for number, rows in enumerate(users)]
    expected = [recommender.recommend(*call).drop(columns="title") for call in calls]
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(lambda call: fresh.recommend(*call), [*calls, *calls])]
    assert len(sizes(fresh)) == 1
    for rows, right in zip(found, [*expected, *expected], strict=True):
        columns = ["userId", "movieId", "rank"]
        pd.testing.assert_frame_equal(rows[columns], right[columns])


def test_a_closed_recommender_says_so(recommender, few):
    with with_weights(recommender) as closed:
        closed.recommend(few, 3)
        (session,) = (inference.session for inference in closed._kept.values())
    with pytest.raises(UserError, match="the Recommender is closed; load it again"):
        closed.recommend(few, 3)
    with pytest.raises(RuntimeError, match="closed"):
        session.run([])
    closed.close()


def test_a_recommender_that_is_collected_closes_its_session(recommender, few):
    collected = with_weights(recommender)
    collected.recommend(few, 3)
    session = weakref.ref(next(iter(collected._kept.values())).session)
    del collected
    gc.collect()
    assert session() is None
