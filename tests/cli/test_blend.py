"""--blend ease: chosen once on the validation users, used by every mode."""

import dataclasses
import hashlib
import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from helpers import SMALL, checkpoints, log_lines, run_main

from vae import Recommender
from vae.baselines.best_unseen import best_unseen
from vae.baselines.ease import Ease
from vae.errors import UserError
from vae.load.store import open_dataset
from vae.metrics.user_results import UserResults
from vae.models.checkpoints.checkpoint import read_state, replace_state
from vae.models.inference.blend import MODEL_WEIGHTS
from vae.models.inference.evaluate import evaluate

BLEND = ("--blend", "ease")


def flags(data, folder, *more):
    return (
        "--dataset", "synthetic", "--data_dir", data, *SMALL, "--checkpoint_dir", folder / "ckpt",
        "--results_dir", folder / "results", "--log_path", folder / "run.log", *more,
    )  # fmt: skip


def results(folder):
    return json.loads((folder / "results/results.json").read_text())


def blend_of(folder):
    """What the states of a run's checkpoints hold, oldest first."""
    return [read_state(path).blend for path in checkpoints(folder)]


@pytest.fixture(scope="session")
def blended(demo_data, build_once):
    """The folder of a run that trained, chose the blend and tested it."""

    def train(folder):
        more = ("--train", "--test", "--epochs", 4, "--validation_step", 2, *BLEND)
        done = run_main(*flags(demo_data, folder, *more, "--baselines", "ease"))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return build_once("blended", train)


def test_the_choice_is_said_logged_and_in_the_state_of_the_best_checkpoint(blended):
    folder, stdout = blended
    values = results(folder)
    weight, lambda_ = values["blend_model_weight"], values["blend_ease_lambda"]
    assert f"Blend: {weight:g} x model + {1 - weight:g} x EASE (lambda {lambda_:g})" in stdout
    assert {"ease_lambda": lambda_, "model_weight": weight} in blend_of(folder)
    assert f'"blend_model_weight": {weight}' in (folder / "run.log").read_text()
    assert values["ease_lambda"] == lambda_


def test_the_best_weight_on_the_validation_users_is_chosen(run, demo_data, on_model, monkeypatch):
    ndcg = []

    def recorded(*arguments, **more):
        result = evaluate(*arguments, **more)
        ndcg.append(result.metrics["ndcg@100"].mean)
        return result

    monkeypatch.setattr("vae.models.inference.blend.evaluate", recorded)
    done = on_model("--test", *BLEND, "--ease_lambda", 50)
    assert done.returncode == 0, done.stderr
    weight = MODEL_WEIGHTS[int(np.argmax(ndcg))]
    assert f"Blend: {weight:g} x model" in done.stdout
    # The ends are the model and EASE alone, on the users of the training's validations.
    data = open_dataset(demo_data, "synthetic")
    weights = Ease(data.train).item_weights(50)
    ranking = best_unseen(lambda histories: histories @ weights, data.validation.fold_in)
    ease = UserResults.of(ranking, data.validation.targets).metrics["ndcg@100"].mean
    model = read_state(checkpoints(run[0])[-1]).best_ndcg
    assert [ndcg[0], ndcg[-1]] == pytest.approx([ease, model], abs=1e-6)
    assert max(ndcg) > max(ease, model)


def test_the_difference_to_the_model_alone_is_reported(blended):
    values = results(blended[0])
    difference = values["test_ndcg@100"] - values["unblended_ndcg@100"]
    assert values["test_minus_unblended_ndcg@100"] == pytest.approx(difference, abs=1e-9)


def digests(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_test_of_a_model_trained_without_it_chooses_and_writes_nothing(run, tmp_path):
    folder, of_run, _ = run
    before = digests(folder / "ckpt")
    of_model = of_run[: of_run.index("--results_dir")]
    done = run_main("--test", *of_model, *SMALL, *BLEND, "--log_path", tmp_path / "log")
    assert done.returncode == 0, done.stderr
    assert "Blend: " in done.stdout
    assert digests(folder / "ckpt") == before


def test_a_run_that_was_cut_off_before_the_choice_writes_it_later(blended, demo_data, tmp_path):
    shutil.copytree(blended[0] / "ckpt", tmp_path / "ckpt")
    for path in checkpoints(tmp_path):
        replace_state(path, dataclasses.replace(read_state(path), blend=None))
    done = run_main(*flags(demo_data, tmp_path, "--train", "--epochs", 4, *BLEND))
    assert done.returncode == 0, done.stderr
    assert "Nothing to do" in done.stdout
    assert blend_of(tmp_path) == blend_of(blended[0])


def test_training_on_chooses_the_blend_again(blended, demo_data, tmp_path):
    shutil.copytree(blended[0] / "ckpt", tmp_path / "ckpt")
    done = run_main(*flags(demo_data, tmp_path, "--train", "--epochs", 5))
    assert done.returncode == 0, done.stderr
    assert "--blend ease.\n" in done.stdout
    assert re.search(r"\nBlend: .* \(lambda \d+\)\.\n", done.stdout)
    chosen = blend_of(tmp_path)[-1]
    assert chosen is not None
    # The item vectors are those of the model alone: nothing is fitted for them.
    done = run_main("--similar_items", 17, *flags(demo_data, tmp_path))
    assert "EASE" not in done.stdout
    assert blend_of(tmp_path)[-1] == chosen


def test_recommendations_and_the_exported_model_are_those_of_the_blend(
    blended, demo_data, tmp_path
):
    def recommend(name, *more):
        done = run_main(
            "--recommend", "--output", tmp_path / name, *flags(demo_data, blended[0]),
            "--top_results", 20, *more, "--log_path", os.devnull,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return pd.read_csv(tmp_path / name)

    # What the state holds needs not be repeated.
    mixed = recommend("mixed.csv", "--export", tmp_path / "export")
    assert mixed.movieId.equals(recommend("given.csv", *BLEND).movieId)
    assert not mixed.movieId.equals(recommend("alone.csv", "--blend", "none").movieId)
    assert "x EASE" in (tmp_path / "export/model_card.md").read_text()
    model = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    users = np.load(demo_data / "synthetic/preprocessed/test_user_ids.npy")[:5]
    ratings = pd.read_csv(next((demo_data / "synthetic/extracted").rglob("ratings.csv")))
    for user in users:
        liked = ratings[(ratings.userId == user) & (ratings.rating > 3.5)].movieId
        found = model(histories=tf.constant([liked.to_list()], tf.int64))["items"][0]
        expected = mixed[mixed.userId == user].movieId
        assert found.numpy()[: len(expected)].tolist() == expected.to_list()


@pytest.mark.parametrize("blend", [None, "ease", "none"])
def test_a_recommender_is_blended_like_the_command_line(blend, blended, demo_data, tmp_path):
    ids = open_dataset(demo_data, "synthetic").item_ids[[10, 20, 30]]
    histories = pd.DataFrame({"userId": [1] * 3, "movieId": ids.tolist()})
    histories.to_csv(tmp_path / "histories.csv", index=False)
    done = run_main(
        "--recommend", tmp_path / "histories.csv", "--output", tmp_path / "mixed.csv",
        *(("--blend", blend) if blend else ()),
        "--top_results", 20, *flags(demo_data, blended[0]), "--log_path", os.devnull,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recommender = Recommender.load(blended[0] / "ckpt", demo_data, "synthetic", blend=blend)
    assert recommender.model.is_blended == (blend != "none")
    found = recommender.recommend(histories, k=20)
    assert found.movieId.equals(pd.read_csv(tmp_path / "mixed.csv").movieId)
    if recommender.model.is_blended:
        with pytest.raises(UserError, match="explain explains the model alone"):
            recommender.recommend(histories, explain=2)


@pytest.mark.parametrize("mode", [("--test",), ("--train", "--test", "--epochs", 4)])
def test_a_test_without_flags_is_of_what_the_checkpoint_holds(mode, blended, demo_data, tmp_path):
    shutil.copytree(blended[0] / "ckpt", tmp_path / "ckpt")
    done = run_main(*flags(demo_data, tmp_path)[:4], *flags(demo_data, tmp_path)[12:], *mode)
    assert done.returncode == 0, done.stderr
    lines = log_lines(blended[0] / "run.log")
    summaries = [line["data"] for line in lines if line["type"] == "LOG"]
    expected = next(data["test_ndcg@100"] for data in summaries if "test_ndcg@100" in data)
    assert results(tmp_path)["test_ndcg@100"] == expected
    assert (
        "Taken from the checkpoint: --hidden_dim 64 --latent_dim 16 --blend ease.\n" in done.stdout
    )
    assert "as chosen when the model was trained.\n" in done.stdout


def test_what_contradicts_the_blend_of_the_checkpoint_is_refused(blended, demo_data):
    more = ("--recommend", "--output", "x.csv", "--explain", 2)
    done = run_main(*flags(demo_data, blended[0]), *more)
    assert done.returncode == 2
    assert "pass --blend none; the checkpoint has --model multvae" in done.stderr


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--inference_benchmark", *BLEND), "--blend needs a trained model"),
        (
            ("--train", "--recommend", "--output", "x.csv", "--explain", 2, *BLEND),
            "--explain and --blend ease are mutually exclusive",
        ),
        (("--test", "--train", "--blend", "svd"), "invalid choice: 'svd'"),
    ],
)
def test_what_makes_no_sense_is_refused(flags, problem):
    done = run_main(*flags)
    assert done.returncode == 2
    assert problem in done.stderr
