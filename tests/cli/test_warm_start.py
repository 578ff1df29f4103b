"""--warm_start: a model of other users and items as the start of a new one."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import (
    ONE_THREAD,
    SMALL,
    Forked,
    assert_close_weights,
    checkpoints,
    mpirun,
    run_main,
    run_prepare,
    run_script,
    variables,
)

from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.checkpoint import read_item_ids

ITEM_AXES = {"encoder/hidden/kernel": 0, "decoder/items/kernel": 1, "decoder/items/bias": 0}
SAVE_ALL = ("--save_every", "0.0000001m", "--keep_checkpoints", 100)


def flags(data, folder, *more):
    return (
        "--train", "--data_dir", data, *SMALL, "--epochs", 2, "--checkpoint_dir", folder / "ckpt",
        "--results_dir", folder / "results", "--log_path", folder / "run.log", *more,
    )  # fmt: skip


@pytest.fixture(scope="session")
def catalogues(demo_data, build_once):
    """A folder with two data sets: ``old`` lacks a fifth of the items, ``new`` another few."""

    def prepare(folder):
        ratings = pd.read_csv(next((demo_data / "synthetic/extracted").rglob("ratings.csv")))
        for name, kept in (("old", ratings.movieId % 5 != 0), ("new", ratings.movieId % 11 != 3)):
            ratings[kept].to_csv(folder / f"{name}.csv", index=False)
            done = run_prepare(
                "--dataset", name, "--ratings", folder / f"{name}.csv", "--data_dir", folder,
                "--heldout_users", 200,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

    return build_once("catalogues", prepare)[0]


@pytest.fixture(scope="session")
def old(catalogues, build_once):
    """The folder of a run of a model on the old catalogue, with a checkpoint of each epoch."""

    def of_model(model):
        def train(folder):
            more = ("--dataset", "old", "--model", model, "--save_every", "1e")
            done = run_main(*flags(catalogues, folder, *more))
            assert done.returncode == 0, done.stderr

        return build_once(f"old-{model}", train)[0]

    return of_model


@pytest.fixture(scope="session")
def on_new(catalogues):
    """The flags of a run on the new catalogue that starts from a folder of checkpoints."""

    def of(folder, source, model, *more):
        start = ("--warm_start", source) if source else ()
        return flags(catalogues, folder, "--dataset", "new", "--model", model, *start, *more)

    return of


@pytest.fixture(scope="session")
def warm(old, on_new, build_once):
    """The folder of a run on the new catalogue that started from the old model of RecVAE."""

    def train(folder):
        done = Forked(on_new(folder, old("recvae") / "ckpt", "recvae", *SAVE_ALL)).wait()
        assert done.returncode == 0, done.stderr
        assert "Warm start from" in done.stdout

    return build_once("warm", train)[0]


@pytest.mark.parametrize("model", ["multvae", "recvae"])
def test_known_items_other_layers_adams_slots_and_the_global_step_are_taken_over(
    model, old, on_new, tmp_path
):
    source, warm, cold = old(model) / "ckpt", tmp_path / "warm", tmp_path / "cold"
    # Without a learning rate, the weights stay as they were at the start; in one step with such a
    # beta1, the first moments hardly change.
    one_step = ("--lr", 0, "--epochs", 1, "--batch_size_train", 100_000, "--beta1", 0.999999)
    for folder, start in ((warm, source), (cold, None)):
        done = run_main(*on_new(folder, start, model, *one_step))
        assert done.returncode == 0, done.stderr
    paths = [checkpoints(folder)[-1] for folder in (warm, old(model), cold)]
    found, source, random = (variables(path) for path in paths)
    ids, old_ids = (list(read_item_ids(path)) for path in paths[:2])
    targets = [index for index, item in enumerate(ids) if item in old_ids]
    sources = [old_ids.index(ids[index]) for index in targets]
    new = [index for index, item in enumerate(ids) if item not in old_ids]
    assert new
    assert len(sources) < len(old_ids)

    assert found["global_step"] == source["global_step"] + 1
    for name in (name for name in found if re.fullmatch(".*/(kernel|bias|gain)", name)):
        layer = name.removeprefix("prior/")
        axis = ITEM_AXES.get(layer)
        mine, theirs, cold_values = found[name], source[name], random[name]
        if axis is not None:
            if layer == name:  # the prior's copy was renewed at the end of the epoch
                np.testing.assert_array_equal(
                    np.take(mine, new, axis), np.take(cold_values, new, axis), err_msg=name
                )
            mine, theirs = np.take(mine, targets, axis), np.take(theirs, sources, axis)
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    for name, axis in {"encoder/latent/kernel": None, **ITEM_AXES}.items():
        mine, theirs = found[f"{name}/Adam"], source[f"{name}/Adam"]
        if axis is not None:
            mine, theirs = np.take(mine, targets, axis), np.take(theirs, sources, axis)
        assert np.abs(theirs).max() > 1e-4
        np.testing.assert_allclose(mine, theirs, rtol=1e-2, atol=1e-5, err_msg=name)

    counts = {
        "warm_start_items": len(sources),
        "warm_start_new_items": len(new),
        "warm_start_gone_items": len(old_ids) - len(sources),
    }
    for name in ("args.json", "results.json"):
        assert counts.items() <= json.loads((warm / "results" / name).read_text()).items()


def test_a_warm_run_resumes_like_any_other(warm, old, on_new, tmp_path):
    shutil.copytree(warm / "ckpt", tmp_path / "ckpt")
    for path in checkpoints(tmp_path)[len(checkpoints(tmp_path)) // 2 :]:
        shutil.rmtree(path)
    done = Forked(on_new(tmp_path, old("recvae") / "ckpt", "recvae", *SAVE_ALL)).wait()
    assert done.returncode == 0, done.stderr
    assert "Resuming" in done.stdout
    args, expected = (
        json.loads((run / "results/args.json").read_text()) for run in (tmp_path, warm)
    )
    counts = {name: value for name, value in expected.items() if name.startswith("warm_start_")}
    assert len(counts) == 3
    assert counts.items() <= args.items()
    found, expected = (variables(checkpoints(run)[-1]) for run in (tmp_path, warm))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("reader", ["read_item_ids", "read_variables"])
def test_a_checkpoint_that_its_training_removes_meanwhile_is_followed_by_the_next(
    reader, old, on_new, tmp_path, monkeypatch
):
    source, (first, second) = tmp_path / "source", checkpoints(old("multvae"))
    shutil.copytree(first, source / first.name)
    read = getattr(checkpoint, reader)

    def read_too_late(path, *args):
        if path.name == first.name:
            shutil.rmtree(path)
            shutil.copytree(second, source / second.name)
        return read(path, *args)

    monkeypatch.setattr(checkpoint, reader, read_too_late)
    done = run_main(*on_new(tmp_path, source, "multvae", "--epochs", 1))
    assert done.returncode == 0, done.stderr
    assert f"Warm start from {source / second.name}: " in done.stdout


@pytest.mark.xdist_group("mpi")
@pytest.mark.slow
def test_two_workers_start_like_one(warm, old, on_new, tmp_path):
    job = on_new(tmp_path, old("recvae") / "ckpt", "recvae")
    done = run_script("main.py", *job, launcher=mpirun(2), env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert_close_weights(tmp_path, warm)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--hidden_dim", 32), "has other layers (hidden_dim is 64 in the checkpoint, 32 now)"),
        (("--encoder", "dense"), "other layers (encoder is tanh in the checkpoint, dense now)"),
        (("--warm_start", "nowhere"), "--warm_start nowhere: holds no checkpoint"),
    ],
)
def test_what_cannot_be_a_start_is_refused_before_training(more, problem, old, on_new, tmp_path):
    done = run_main(*on_new(tmp_path, old("multvae") / "ckpt", "multvae", *more))
    assert done.returncode == 2
    assert problem in done.stderr
    assert not (tmp_path / "ckpt").exists()
