"""--blend ease: chosen once on the validation users, used by every mode."""

import dataclasses
import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from helpers import SMALL, checkpoints, copy, error_of, flags, log_lines, output_of, run_main

from vae import Recommender
from vae.baselines.best_unseen import best_unseen
from vae.baselines.ease import Ease
from vae.baselines.ease_choice import MAX_FITS
from vae.errors import UserError
from vae.load.store import open_dataset
from vae.metrics.user_results import UserResults
from vae.models.checkpoints.checkpoint import read_state, replace_state
from vae.models.inference.blend import MODEL_WEIGHTS
from vae.models.inference.evaluate import evaluate

BLEND = ("--blend", "ease")


def results(folder):
    return json.loads((folder / "results/results.json").read_text())


def blend_of(folder):
    """What the states of a run's checkpoints hold, oldest first."""
    return [read_state(path).blend for path in checkpoints(folder)]


def rewrite_blend(folder, blend):
    for path in checkpoints(folder):
        replace_state(path, dataclasses.replace(read_state(path), blend=blend))


@pytest.fixture(scope="session")
def blended(demo_data, build_once):
    """The folder of a run that trained, chose the blend and tested it, and its output."""

    def train(folder):
        more = ("--epochs", 4, "--validation_step", 2, *BLEND, "--baselines", "ease")
        more = (*SMALL, *more, "--results_dir", folder / "results")
        return output_of(run_main("--train", "--test", *flags(demo_data, folder, *more)))

    return build_once("blended", train)


@pytest.fixture
def copied(blended, demo_data, tmp_path):
    """Runs main.py with further flags on a copy of that run's checkpoints, in ``tmp_path``."""
    copy(blended[0], tmp_path)
    return lambda *more: output_of(run_main(*flags(demo_data, tmp_path, *more)))


def test_the_choice_is_said_logged_and_in_the_state_of_the_best_checkpoint(blended):
    folder, stdout = blended
    values = results(folder)
    chosen = {name: values[f"blend_{name}"] for name in ("ease_lambda", "ease_dropout")}
    weight = values["blend_model_weight"]
    ease = "lambda {:g}, dropout {:g}".format(*chosen.values())
    assert f"Blend: {weight:g} x model + {1 - weight:g} x EASE ({ease})" in stdout
    assert chosen | {"model_weight": weight} in blend_of(folder)
    assert f'"blend_model_weight": {weight}' in (folder / "run.log").read_text()
    assert chosen.items() <= values.items()
    tried = re.findall(r"EASE with lambda (.*): validation ndcg@100 (\S+)\.\n", stdout)
    assert f"lambda {max(tried, key=lambda one: float(one[1]))[0]}" == ease
    # At most once more than there are settings: what the search ended with, for blend and test.
    assert len(tried) <= stdout.count("Fitting EASE with") <= len(tried) + 1 <= MAX_FITS
    difference = values["test_ndcg@100"] - values["unblended_ndcg@100"]
    assert values["test_minus_unblended_ndcg@100"] == pytest.approx(difference, abs=1e-9)


def digests(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_test_chooses_the_best_weight_on_the_validation_users_and_writes_nothing(
    run, demo_data, on_model, tmp_path, monkeypatch
):
    ndcg = []

    def recorded(*arguments, **more):
        result = evaluate(*arguments, **more)
        ndcg.append(result.metrics["ndcg@100"].mean)
        return result

    monkeypatch.setattr("vae.models.inference.blend.evaluate", recorded)
    before = digests(run[0] / "ckpt")
    more = ("--ease_lambda", 50, "--ease_dropout", 0.5, "--results_dir", tmp_path / "results")
    stdout = output_of(on_model("--test", *BLEND, *more, "--baselines", "ease"))
    assert stdout.count("Fitting EASE with lambda 50, dropout 0.5 ...") == 1
    assert digests(run[0] / "ckpt") == before
    weight = MODEL_WEIGHTS[int(np.argmax(ndcg))]
    assert f"Blend: {weight:g} x model" in stdout
    assert results(tmp_path)["ease_lambda"] == 50
    assert "popularity_ndcg@100" not in results(tmp_path)
    # The ends are the model and EASE alone, on the users of the training's validations.
    data = open_dataset(demo_data, "synthetic")
    ranking = best_unseen(Ease(data.train, 50, 0.5).scores, data.validation.fold_in)
    ease = UserResults.of(ranking, data.validation.targets).metrics["ndcg@100"].mean
    model = read_state(checkpoints(run[0])[-1]).best_ndcg
    assert [ndcg[0], ndcg[-1]] == pytest.approx([ease, model], abs=1e-6)
    assert max(ndcg) > max(ease, model)


def test_a_run_that_was_cut_off_before_the_choice_writes_it_later(blended, copied, tmp_path):
    rewrite_blend(tmp_path, None)
    assert "Nothing to do" in copied("--train", *SMALL, "--epochs", 4, *BLEND)
    assert blend_of(tmp_path) == blend_of(blended[0])


def test_a_blend_of_before_the_dropout_has_none(copied, tmp_path):
    rewrite_blend(tmp_path, {"ease_lambda": 50.0, "model_weight": 0.25})
    stdout = copied("--test")
    chosen = "0.25 x model + 0.75 x EASE (lambda 50, dropout 0), as chosen when the model was"
    assert chosen in stdout
    assert "validation" not in stdout


def test_training_on_chooses_the_blend_again(copied, tmp_path):
    stdout = copied("--train", *SMALL, "--epochs", 5)
    assert "--blend ease.\n" in stdout
    assert re.search(r"\nBlend: .* \(lambda \d+, dropout \S+\)\.\n", stdout)
    chosen = blend_of(tmp_path)[-1]
    assert chosen is not None
    # The item vectors are those of the model alone: nothing is fitted for them.
    assert "EASE" not in copied("--similar_items", 17)
    assert blend_of(tmp_path)[-1] == chosen


@pytest.mark.parametrize("mode", [("--test",), ("--train", "--test", "--epochs", 4)])
def test_a_test_without_flags_is_of_what_the_checkpoint_holds(mode, blended, copied, tmp_path):
    more = SMALL[4:] if "--train" in mode else ()
    stdout = copied(*mode, *more, "--results_dir", tmp_path / "results")
    summaries = [line.get("data", {}) for line in log_lines(blended[0] / "run.log")]
    expected = next(data["test_ndcg@100"] for data in summaries if "test_ndcg@100" in data)
    assert results(tmp_path)["test_ndcg@100"] == expected
    assert "Taken from the checkpoint: --hidden_dim 64 --latent_dim 16 --blend ease.\n" in stdout
    assert "as chosen when the model was trained.\n" in stdout


@pytest.fixture(params=[None, 30], ids=["all weights", "the largest weights"])
def lists(blended, demo_data, build_once, monkeypatch, request):
    """The folder of recommendations to all users: with the blend of the state, given, and without.

    Beside them lies an export of the first. There is memory for all weights of EASE, or for 30 per
    item.
    """
    kept = request.param
    if kept:
        monkeypatch.setattr("vae.models.inference.blend.weights_per_item", lambda *_: kept)

    def recommend(folder):
        for name, more in {
            "mixed": ("--export", folder / "export"),
            "given": BLEND,
            "alone": ("--blend", "none"),
        }.items():
            outputs = ("--output", folder / f"{name}.csv", "--log_path", folder / "log")
            more = flags(demo_data, blended[0], *outputs, "--top_results", 20, *more)
            stdout = output_of(run_main("--recommend", *more))
            pattern = r"with the 30 largest validation ndcg@100 is (0\.\d+) instead of (0\.\d+)\.\n"
            loss = re.findall(pattern, stdout)
            assert len(loss) == (kept is not None and name != "alone")
            assert all(0 < abs(float(before) - float(after)) < 0.05 for after, before in loss)

    return build_once(f"blended-lists-{kept}", recommend)[0]


def test_recommendations_and_the_exported_model_are_those_of_the_blend(lists, demo_data):
    mixed, given, alone = (pd.read_csv(lists / f"{n}.csv") for n in ("mixed", "given", "alone"))
    assert mixed.movieId.equals(given.movieId)  # what the state holds needs not be repeated
    assert not mixed.movieId.equals(alone.movieId)
    card = (lists / "export/model_card.md").read_text()
    assert re.search(r"x EASE .* \d+ weights per item", card)
    model = tf.saved_model.load(str(lists / "export")).signatures["serving_default"]
    users = np.load(demo_data / "synthetic/preprocessed/data-0/test_user_ids.npy")[:5]
    ratings = pd.read_csv(next((demo_data / "synthetic/extracted").rglob("ratings.csv")))
    for user in users:
        liked = ratings[(ratings.userId == user) & (ratings.rating > 3.5)].movieId
        found = model(histories=tf.constant([liked.to_list()], tf.int64))["items"][0]
        expected = mixed[mixed.userId == user].movieId
        assert found.numpy()[: len(expected)].tolist() == expected.to_list()


@pytest.mark.parametrize(("blend", "name"), [(None, "mixed"), ("ease", "mixed"), ("none", "alone")])
def test_a_recommender_is_blended_like_the_command_line(blend, name, lists, blended, demo_data):
    listed = pd.read_csv(lists / f"{name}.csv")
    histories = pd.DataFrame({"userId": listed.userId.unique()[:50]})
    recommender = Recommender.load(blended[0] / "ckpt", demo_data, "synthetic", blend=blend)
    assert recommender.model.is_blended == (blend != "none")
    found, expected = (
        lists[lists.userId.isin(histories.userId)].sort_values(["userId", "rank"]).movieId.to_list()
        for lists in (recommender.recommend(histories, k=20), listed)
    )
    assert found == expected
    if recommender.model.is_blended:
        with pytest.raises(UserError, match="explain explains the model alone"):
            recommender.recommend(histories, explain=2)


def test_what_contradicts_the_blend_of_the_checkpoint_is_refused(blended, demo_data):
    more = ("--recommend", "--output", "x.csv", "--explain", 2)
    sentence = error_of(run_main(*flags(demo_data, blended[0], *more)))
    assert "pass --blend none; the checkpoint has --model multvae" in sentence


AUTO = ("--train", "--preset", "auto", "--epochs", 1, "--hidden_dim", 8, "--latent_dim", 4)


def chosen_by(stdout):
    """The sentence on what --preset auto chose, which is in lines of 100 columns at most."""
    (sentence,) = re.findall(r"Preset auto: .*(?:\n  .*)*", stdout)
    assert max(map(len, sentence.splitlines())) <= 100
    return re.sub(r"\n *", " ", sentence)


def test_the_preset_auto_chooses_by_the_data_and_its_model_needs_no_flags_afterwards(
    demo_data, tmp_path
):
    more = (*AUTO, "--lr", 0.004, "--ease_lambda", 99, "--results_dir", tmp_path / "results")
    stdout = output_of(run_main(*flags(demo_data, tmp_path, *more)))
    users = open_dataset(demo_data, "synthetic").train.shape[0]
    chosen = {"model": "recvae", "batch_size_train": -(-users // 10), "early_stop": 5}
    expected = chosen | {
        "ease_lambda": 99,
        "validation_step": 5,
        "blend": "ease",
        "epochs": 1,
        "lr": 0.004,
    }
    args = json.loads((tmp_path / "results/args.json").read_text())
    assert expected.items() <= args.items()
    line = chosen_by(stdout)
    for part in (f"{users:,} users", f"batches of {chosen['batch_size_train']}", "0.004", "EASE"):
        assert part in line
    assert "Taken from the checkpoint" not in stdout
    again = output_of(run_main("--test", *flags(demo_data, tmp_path)))
    assert "--blend ease" in again
    assert "model alone" in again


def test_the_preset_auto_leaves_out_a_blend_that_does_not_fit_is_refused_or_not_explained(
    demo_data, tmp_path, monkeypatch
):
    def line_of(name, *more):
        line = flags(demo_data, tmp_path / name, *AUTO, *more)
        return chosen_by(output_of(run_main(*line)))

    explained = ("--recommend", "--output", tmp_path / "o.csv", "--explain", 1)
    given = line_of("given", "--blend", "none", "--batch_size_train", 999, "--early_stop", 0)
    assert given.endswith("at most 1 epoch; no blend.")
    assert line_of("explained", *explained).endswith("no blend.")
    monkeypatch.setattr("vae.models.training.memory.available_bytes", lambda workers: 5_000_000)
    monkeypatch.setattr("vae.models.training.memory.check_memory", lambda *_: None)
    assert line_of("short").endswith("no blend.")
