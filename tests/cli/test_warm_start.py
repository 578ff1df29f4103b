"""--warm_start: a model of other users and items as the start of a new one."""

import json
import re
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from helpers import (
    ONE_THREAD,
    SMALL,
    Forked,
    assert_close_weights,
    checkpoints,
    error_of,
    mpirun,
    run_main,
    run_prepare,
    run_script,
    variables,
)

from vae.load.store import open_dataset
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.checkpoint import read_item_ids

ITEM_AXES = {"encoder/hidden/kernel": 0, "decoder/items/kernel": 1, "decoder/items/bias": 0}


def flags(data, dataset, model, folder, *more):
    return (
        "--train", "--data_dir", data, "--dataset", dataset, "--model", model, *SMALL,
        "--epochs", 2, "--checkpoint_dir", folder / "ckpt", "--results_dir", folder / "results",
        "--log_path", folder / "run.log", *more,
    )  # fmt: skip


def train(*arguments):
    done = run_main(*arguments)
    assert done.returncode == 0, done.stderr
    return done


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
    """The folder of checkpoints of a model on the old catalogue, one of each epoch."""

    def of_model(model):
        def fill(folder):
            train(*flags(catalogues, "old", model, folder, "--save_every", "1e"))

        return build_once(f"old-{model}", fill)[0] / "ckpt"

    return of_model


@pytest.fixture(scope="session")
def warm(catalogues, old, build_once):
    """Flags of a run of RecVAE on the new catalogue that starts from the old, and its folder."""
    more = ("--warm_start", old("recvae"), "--save_every", "0.0000001m", "--keep_checkpoints", 100)
    of = partial(flags, catalogues, "new", "recvae")

    def fill(folder):
        done = Forked(of(folder, *more)).wait()
        assert done.returncode == 0, done.stderr
        assert "Warm start from" in done.stdout

    return lambda folder: of(folder, *more), build_once("warm", fill)[0]


def part(values, indices, axis):
    """Those of some items; all values where no axis is that of the items."""
    return values if axis is None else np.take(values, indices, axis)


@pytest.mark.parametrize("model", ["multvae", "recvae"])
def test_known_items_other_layers_adams_slots_and_the_global_step_are_taken_over(
    model, catalogues, old, tmp_path
):
    # Without a learning rate, the weights stay as they were at the start; in one step with such a
    # beta1, the first moments hardly change.
    one_step = ("--lr", 0, "--epochs", 1, "--batch_size_train", 100_000, "--beta1", 0.999999)
    warm, cold = tmp_path / "warm", tmp_path / "cold"
    train(*flags(catalogues, "new", model, warm, *one_step, "--warm_start", old(model)))
    train(*flags(catalogues, "new", model, cold, *one_step))
    paths = [checkpoints(folder)[-1] for folder in (warm, old(model).parent, cold)]
    found, source, random = (variables(path) for path in paths)
    ids, old_ids = (list(read_item_ids(path)) for path in paths[:2])
    here = [index for index, item in enumerate(ids) if item in old_ids]
    there = [old_ids.index(ids[index]) for index in here]
    new = [index for index, item in enumerate(ids) if item not in old_ids]
    assert new
    assert len(there) < len(old_ids)

    assert found["global_step"] == source["global_step"] + 1
    for name in (name for name in found if re.fullmatch(".*/(kernel|bias|gain)", name)):
        axis = ITEM_AXES.get(name.removeprefix("prior/"))
        mine, theirs = part(found[name], here, axis), part(source[name], there, axis)
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
        if name in ITEM_AXES:
            mine, theirs = part(found[name], new, axis), part(random[name], new, axis)
            np.testing.assert_array_equal(mine, theirs, err_msg=name)
    for name, axis in {"encoder/latent/kernel": None, **ITEM_AXES}.items():
        mine = part(found[f"{name}/Adam"], here, axis)
        theirs = part(source[f"{name}/Adam"], there, axis)
        assert np.abs(theirs).max() > 1e-4
        np.testing.assert_allclose(mine, theirs, rtol=1e-2, atol=1e-5, err_msg=name)

    counts = {
        "warm_start_items": len(there),
        "warm_start_new_items": len(new),
        "warm_start_gone_items": len(old_ids) - len(there),
    }
    for name in ("args.json", "results.json"):
        assert counts.items() <= json.loads((warm / "results" / name).read_text()).items()


def test_a_warm_run_resumes_like_any_other(warm, tmp_path):
    of, whole = warm
    shutil.copytree(whole / "ckpt", tmp_path / "ckpt")
    for path in checkpoints(tmp_path)[len(checkpoints(tmp_path)) // 2 :]:
        shutil.rmtree(path)
    done = Forked(of(tmp_path)).wait()
    assert done.returncode == 0, done.stderr
    assert "Resuming" in done.stdout
    found, expected = (variables(checkpoints(run)[-1]) for run in (tmp_path, whole))
    np.testing.assert_equal(found, expected)
    args, expected = (
        json.loads((run / "results/args.json").read_text()) for run in (tmp_path, whole)
    )
    counts = {name: value for name, value in expected.items() if name.startswith("warm_start_")}
    assert len(counts) == 3
    assert counts.items() <= args.items()


@pytest.mark.parametrize("reader", ["read_item_ids", "read_variables"])
def test_a_checkpoint_that_its_training_removes_meanwhile_is_followed_by_the_next(
    reader, catalogues, old, tmp_path, monkeypatch
):
    source, (first, second) = tmp_path / "source", checkpoints(old("multvae").parent)
    shutil.copytree(first, source / first.name)
    read = getattr(checkpoint, reader)

    def read_too_late(path, *args):
        if path.name == first.name:
            shutil.rmtree(path)
            shutil.copytree(second, source / second.name)
        return read(path, *args)

    monkeypatch.setattr(checkpoint, reader, read_too_late)
    more = ("--warm_start", source, "--epochs", 1)
    done = train(*flags(catalogues, "new", "multvae", tmp_path, *more))
    assert f"Warm start from {source / second.name}: takes" in " ".join(done.stdout.split())


@pytest.mark.xdist_group("mpi")
@pytest.mark.slow
def test_two_workers_start_like_one(warm, tmp_path):
    of, alone = warm
    done = run_script("main.py", *of(tmp_path), launcher=mpirun(2), env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert_close_weights(tmp_path, alone)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--hidden_dim", 32), "has other layers (hidden_dim is 64 in the checkpoint, 32 now)"),
        (("--encoder", "dense"), "other layers (encoder is tanh in the checkpoint, dense now)"),
        (("--warm_start", "nowhere"), "--warm_start nowhere: holds no checkpoint"),
    ],
)
def test_what_cannot_be_a_start_is_refused_before_training(
    more, problem, catalogues, old, tmp_path
):
    start = ("--warm_start", old("multvae"))
    done = run_main(*flags(catalogues, "new", "multvae", tmp_path, *start, *more))
    assert done.returncode == 2
    assert problem in done.stderr
    assert not (tmp_path / "ckpt").exists()


def test_a_model_of_data_that_have_grown_keeps_its_items_and_says_how_much_is_new(tmp_path):
    rng = np.random.default_rng(0)
    ratings = pd.DataFrame(np.argwhere(rng.random((90, 40)) < 0.4), columns=["userId", "movieId"])
    is_new = (ratings.movieId >= 30) | (ratings.userId >= 70)
    ratings[~is_new].to_csv(tmp_path / "first.csv", index=False)
    ratings[is_new].to_csv(tmp_path / "more.csv", index=False)
    where = ("--data_dir", tmp_path, "--dataset", "mine")
    base = ("--ratings", tmp_path / "first.csv", "--rating_col", "none", "--heldout_users", 10)
    assert run_prepare(*where, *base).returncode == 0
    train(*flags(tmp_path, "mine", "multvae", tmp_path / "old"))
    before = open_dataset(tmp_path, "mine")
    done = run_prepare(*where, "--ratings", tmp_path / "more.csv", "--extend")
    assert done.returncode == 0, done.stderr
    data = open_dataset(tmp_path, "mine")
    one_step = ("--lr", 0, "--epochs", 1, "--batch_size_train", 1000)
    # The model of the data before does not fit any more, and the sentence says what does.
    on_old = (*where, "--checkpoint_dir", tmp_path / "old/ckpt", "--log_path", tmp_path / "log")
    for modes in (("--test",), ("--train", *SMALL, "--epochs", 99)):
        error = error_of(run_main(*modes, *on_old))
        assert re.search(r"ckpt/step-\d+: trained on the data before --extend added", error)
        assert f"--train --warm_start {tmp_path / 'old/ckpt'}/step-" in error
    start = ("--warm_start", tmp_path / "old/ckpt")
    out = train(*flags(tmp_path, "mine", "multvae", tmp_path / "new", *start, *one_step)).stdout
    out = " ".join(out.split())
    known, new = len(before.item_ids), data.train.nnz - before.train.nnz
    assert 0 < known < len(data.item_ids)
    assert f"all {known} items keep their indices, {len(data.item_ids) - known} new items" in out
    assert f"{new:,} new training interactions are {new / data.train.nnz:.2f} epochs' worth." in out
    found, source = (variables(checkpoints(tmp_path / run)[-1]) for run in ("new", "old"))
    for name, axis in ITEM_AXES.items():
        mine, theirs = (part(values[name], range(known), axis) for values in (found, source))
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
