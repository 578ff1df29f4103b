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
from vae.utils.sealed_json import seal

ITEM_AXES = {"encoder/hidden/kernel": 0, "decoder/items/kernel": 1, "decoder/items/bias": 0}


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
    """The folder of a run of a model on the old catalogue."""

    def of_model(model):
        def train(folder):
            done = run_main(*flags(catalogues, folder, "--dataset", "old", "--model", model))
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


@pytest.mark.parametrize("model", ["multvae", "recvae"])
def test_the_rows_of_known_items_and_all_other_layers_are_taken_over(model, old, on_new, tmp_path):
    source, warm, cold = old(model) / "ckpt", tmp_path / "warm", tmp_path / "cold"
    for folder, start in ((warm, source), (cold, None)):
        # With a learning rate of zero the weights stay as they were at the start.
        done = run_main(*on_new(folder, start, model, "--lr", 0, "--epochs", 1))
        assert done.returncode == 0, done.stderr
    paths = [checkpoints(folder)[-1] for folder in (warm, old(model), cold)]
    ids, old_ids = (list(read_item_ids(path)) for path in paths[:2])
    common = [item for item in ids if item in old_ids]
    here, there = [ids.index(item) for item in common], [old_ids.index(item) for item in common]
    new = [index for index, item in enumerate(ids) if item not in old_ids]
    assert new
    assert len(common) < len(old_ids)
    found, taken, random = (variables(path) for path in paths)
    for name in (name for name in found if re.fullmatch(".*/(kernel|bias|gain)", name)):
        axis = ITEM_AXES.get(name.removeprefix("prior/"))
        pairs = [(found[name], taken[name])]
        if axis is not None:
            pairs = [
                (np.take(found[name], here, axis), np.take(taken[name], there, axis)),
                (np.take(found[name], new, axis), np.take(random[name], new, axis)),
            ]
        if axis is not None and name.startswith("prior/"):
            pairs.pop()  # at the end of the epoch it was renewed
        for mine, theirs in pairs:
            np.testing.assert_array_equal(mine, theirs, err_msg=name)
    counts = {
        "warm_start_items": len(common),
        "warm_start_new_items": len(new),
        "warm_start_gone_items": len(old_ids) - len(common),
    }
    for name in ("args.json", "results.json"):
        assert counts.items() <= json.loads((warm / "results" / name).read_text()).items()


def test_adams_slots_and_the_global_step_are_taken_over(old, on_new, tmp_path):
    # In one step with such a beta1 the first moments hardly change.
    more = ("--epochs", 1, "--batch_size_train", 100_000, "--beta1", 0.999999)
    done = run_main(*on_new(tmp_path, old("multvae") / "ckpt", "multvae", *more))
    assert done.returncode == 0, done.stderr
    new, source = (checkpoints(folder)[-1] for folder in (tmp_path, old("multvae")))
    found, taken = variables(new), variables(source)
    assert found["global_step"] == taken["global_step"] + 1
    ids, old_ids = (list(read_item_ids(path)) for path in (new, source))
    here = [index for index, item in enumerate(ids) if item in old_ids]
    there = [old_ids.index(ids[index]) for index in here]
    for name, axis in {"encoder/latent/kernel": None, **ITEM_AXES}.items():
        mine, theirs = found[f"{name}/Adam"], taken[f"{name}/Adam"]
        if axis is not None:
            mine, theirs = np.take(mine, here, axis), np.take(theirs, there, axis)
        assert np.abs(theirs).max() > 1e-4
        np.testing.assert_allclose(mine, theirs, rtol=1e-2, atol=1e-5, err_msg=name)


def test_a_warm_run_resumes_like_any_other(old, on_new, tmp_path):
    source, whole, cut = old("recvae") / "ckpt", tmp_path / "whole", tmp_path / "cut"
    save_all = ("--save_every", "0.0000001m", "--keep_checkpoints", 100)
    done = Forked(on_new(whole, source, "recvae", *save_all)).wait()
    assert done.returncode == 0, done.stderr
    assert "Warm start from" in done.stdout
    shutil.copytree(whole / "ckpt", cut / "ckpt")
    for path in checkpoints(cut)[len(checkpoints(cut)) // 2 :]:
        shutil.rmtree(path)
    done = Forked(on_new(cut, source, "recvae", *save_all)).wait()
    assert done.returncode == 0, done.stderr
    assert "Resuming" in done.stdout
    args, expected = (json.loads((run / "results/args.json").read_text()) for run in (cut, whole))
    counts = {name: value for name, value in expected.items() if name.startswith("warm_start_")}
    assert len(counts) == 3
    assert counts.items() <= args.items()
    found, expected = (variables(checkpoints(run)[-1]) for run in (cut, whole))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("reader", ["read_item_ids", "read_variables"])
def test_a_checkpoint_that_its_training_removes_meanwhile_is_followed_by_the_next(
    reader, old, on_new, catalogues, tmp_path, monkeypatch
):
    source, ended = tmp_path / "source", tmp_path / "ended"
    more = ("--dataset", "old", "--save_every", "1e", "--validation_step", 9)
    done = run_main(*flags(catalogues, ended, *more))
    assert done.returncode == 0, done.stderr
    first, second = checkpoints(ended)
    shutil.copytree(first, source / first.name)
    read = getattr(checkpoint, reader)

    def read_too_late(path, *args):
        if path.name == first.name:
            shutil.rmtree(path)
            shutil.copytree(second, source / second.name)
        return read(path, *args)

    monkeypatch.setattr(checkpoint, reader, read_too_late)
    done = run_main(*on_new(tmp_path, source, "multvae"))
    assert done.returncode == 0, done.stderr
    assert f"Warm start from {source / second.name}: " in done.stdout


@pytest.mark.xdist_group("mpi")
@pytest.mark.slow
def test_two_workers_start_like_one(old, on_new, tmp_path):
    source, alone, job = old("recvae") / "ckpt", tmp_path / "alone", tmp_path / "job"
    done = run_main(*on_new(alone, source, "recvae"))
    assert done.returncode == 0, done.stderr
    done = run_script("main.py", *on_new(job, source, "recvae"), launcher=mpirun(2), env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert_close_weights(job, alone)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--hidden_dim", 32), "has other layers (hidden_dim is 64 there and 32 here)"),
        (("--encoder", "dense"), "has other layers (encoder is tanh there and dense here)"),
        (("--warm_start", "nowhere"), "--warm_start nowhere: holds no checkpoint"),
    ],
)
def test_what_cannot_be_a_start_is_refused_before_training(more, problem, old, on_new, tmp_path):
    done = run_main(*on_new(tmp_path, old("multvae") / "ckpt", "multvae", *more))
    assert done.returncode == 2
    assert problem in done.stderr
    assert not (tmp_path / "ckpt").exists()


def test_a_checkpoint_without_ids_is_refused(old, on_new, tmp_path):
    before = tmp_path / "before"
    shutil.copytree(old("multvae") / "ckpt", before)
    for path in before.glob("step-*"):
        (path / "item_ids.npy").unlink()
        document = json.loads((path / "state.json").read_text())
        del document["files"]["item_ids.npy"]
        (path / "state.json").write_text(seal(document))
    done = run_main(*on_new(tmp_path, before, "multvae"))
    assert done.returncode == 2
    assert "holds no item ids, because an earlier version wrote it" in done.stderr
