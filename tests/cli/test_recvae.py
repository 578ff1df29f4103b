"""RecVAE from the command line: all that holds for a run of Mult-VAE holds for it too."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import Forked, checkpoints, run_main, variables

from vae.load.store import open_dataset

MODEL = ("--model", "recvae", "--hidden_dim", 32, "--latent_dim", 8)
EPOCHS, STEPS = 4, 5
ALL_CHECKPOINTS = ("--save_every", "0.0000001m", "--keep_checkpoints", EPOCHS * STEPS)


def flags(data, folder, *more):
    return (
        "--train", "--dataset", "synthetic", "--data_dir", data, *MODEL,
        "--batch_size_train", 1001, "--lr", 0.005, "--epochs", EPOCHS, "--validation_step", 2,
        "--checkpoint_dir", folder / "ckpt", "--results_dir", folder / "results",
        "--log_path", folder / "run.log", *more,
    )  # fmt: skip


@pytest.fixture(scope="session")
def whole(demo_data, build_once):
    """The folder of an uninterrupted run, with a checkpoint of each step."""

    def train(folder):
        done = Forked(flags(demo_data, folder, "--test", *ALL_CHECKPOINTS)).wait()
        assert done.returncode == 0, done.stderr

    folder, _ = build_once("recvae", train)
    assert len(checkpoints(folder)) == EPOCHS * STEPS
    return folder


@pytest.fixture(scope="session")
def on_model(whole, demo_data):
    """Runs main.py with further flags on the best model of that run."""

    def run(*more):
        done = run_main(
            "--dataset", "synthetic", "--data_dir", demo_data, *more,
            "--checkpoint_dir", whole / "ckpt", "--log_path", os.devnull,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.mark.parametrize(
    "step",
    [
        STEPS + 3,
        2 * STEPS,
        *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 4 * STEPS - 1)),
    ],
)
def test_a_run_that_ended_at_any_step_goes_on_bit_for_bit(step, whole, demo_data, tmp_path):
    shutil.copytree(whole / "ckpt", tmp_path / "ckpt")
    for path in checkpoints(tmp_path)[step:]:
        shutil.rmtree(path)
    done = Forked(flags(demo_data, tmp_path, *ALL_CHECKPOINTS, "--resume", "must")).wait()
    assert done.returncode == 0, done.stderr
    for found, expected in zip(checkpoints(tmp_path), checkpoints(whole), strict=True):
        values, reference = variables(found), variables(expected)
        assert set(values) == set(reference)
        for name, value in reference.items():
            np.testing.assert_array_equal(values[name], value, err_msg=f"{found.name} {name}")


def test_the_prior_is_the_encoder_as_it_was_at_the_end_of_the_epoch_before(whole):
    for step in (STEPS, STEPS + 2, 2 * STEPS - 1, 2 * STEPS):
        at_step = variables(whole / f"ckpt/step-{step:08d}")
        at_epoch = variables(whole / f"ckpt/step-{step // STEPS * STEPS:08d}")
        copies = [name for name in at_step if name.startswith("prior/")]
        assert len(copies) == 2 * 6 + 2 * 5
        for name in copies:
            encoder = name.removeprefix("prior/")
            np.testing.assert_array_equal(at_step[name], at_epoch[encoder])
            if step % STEPS and name.endswith("kernel"):
                assert not np.array_equal(at_step[name], at_step[encoder])
            assert f"{name}/Adam" not in at_step


def test_the_loss_falls_and_the_report_shows_it(whole):
    epochs = pd.read_csv(whole / "results/epochs.csv")
    losses = epochs.neg_log_likelihood.dropna()
    assert losses.is_monotonic_decreasing
    assert (epochs.kl_divergence.dropna() > 0).all()
    assert "kl_weight" not in epochs or epochs.kl_weight.isna().all()
    assert (whole / "results/kl.png").stat().st_size > 0


def test_every_mode_takes_it(on_model, demo_data, tmp_path):
    done = on_model("--test", "--inference_benchmark", "--recommend", "--output",
                    tmp_path / "lists.csv", "--export", tmp_path / "export",
                    "--similar_items", "1")  # fmt: skip
    assert "Nearest to item 1" in done.stdout
    assert (
        "Taken from the checkpoint: --model recvae --hidden_dim 32 --latent_dim 8 --encoder dense "
        "--decoder linear --prior composite --kl_per_item 0.005.\n"
    ) in done.stdout
    dataset = open_dataset(demo_data, "synthetic")
    lists = pd.read_csv(tmp_path / "lists.csv")
    assert lists.userId.nunique() == sum(
        part.fold_in.shape[0] for part in (dataset.validation, dataset.test)
    ) + len(dataset.train_user_ids)
    assert "RecVAE" in (tmp_path / "export/model_card.md").read_text()


def test_training_goes_on_with_the_model_of_the_checkpoint(whole, demo_data, tmp_path):
    shutil.copytree(whole / "ckpt", tmp_path / "ckpt")
    for path in checkpoints(tmp_path)[2 * STEPS :]:
        shutil.rmtree(path)
    without = [flag for flag in flags(demo_data, tmp_path) if flag not in MODEL]
    done = Forked(without).wait()
    assert done.returncode == 0, done.stderr
    assert "changed from" not in done.stdout
    found, expected = (variables(checkpoints(run)[-1]) for run in (tmp_path, whole))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_another_model_is_refused_with_the_part_that_differs(whole, demo_data):
    done = run_main(
        "--test", "--dataset", "synthetic", "--data_dir", demo_data, *MODEL, "--prior", "normal",
        "--checkpoint_dir", whole / "ckpt", "--log_path", os.devnull,
    )  # fmt: skip
    assert done.returncode == 2
    assert "prior is composite in the checkpoint, normal now" in done.stderr


@pytest.mark.parametrize(
    ("flag", "tolerance"),
    [pytest.param("--xla", 1e-4, marks=pytest.mark.slow), ("--amp", 0.01)],  # compiling takes long
)
def test_xla_and_mixed_precision_train_nearly_the_same(flag, tolerance, whole, demo_data, tmp_path):
    done = run_main(*flags(demo_data, tmp_path, "--test", flag))
    assert done.returncode == 0, done.stderr
    found, expected = (pd.read_csv(folder / "results/epochs.csv") for folder in (tmp_path, whole))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=tolerance)
