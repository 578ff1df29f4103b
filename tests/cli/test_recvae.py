"""RecVAE from the command line: all that holds for a run of Mult-VAE holds for it too."""

import numpy as np
import pandas as pd
import pytest
from helpers import Forked, checkpoints, copy, error_of, flags, output_of, run_main, variables

from vae.load.store import open_dataset

MODEL = ("--model", "recvae", "--hidden_dim", 32, "--latent_dim", 8)
EPOCHS, STEPS = 4, 5
TRAINING = (
    "--train", "--batch_size_train", 1001, "--lr", 0.005, "--epochs", EPOCHS,
    "--validation_step", 2,
)  # fmt: skip
ALL_CHECKPOINTS = ("--save_every", "0.0000001m", "--keep_checkpoints", EPOCHS * STEPS)


@pytest.fixture(scope="session")
def whole(demo_data, build_once):
    """The folder of an uninterrupted run, with a checkpoint of each step."""

    def train(folder):
        more = (*MODEL, *ALL_CHECKPOINTS, "--results_dir", folder / "results")
        output_of(Forked(flags(demo_data, folder, *TRAINING, "--test", *more)).wait())

    folder, _ = build_once("recvae", train)
    assert len(checkpoints(folder)) == EPOCHS * STEPS
    return folder


@pytest.mark.parametrize(
    ("step", "model"),
    [
        (STEPS + 3, MODEL),
        (2 * STEPS, ()),  # that of the checkpoint
        *(pytest.param(step, MODEL, marks=pytest.mark.slow) for step in (1, 4 * STEPS - 1)),
    ],
)
def test_a_run_that_ended_at_any_step_goes_on_bit_for_bit(step, model, whole, demo_data, tmp_path):
    copy(whole, tmp_path, keep=step)
    more = (*TRAINING, *model, *ALL_CHECKPOINTS, "--resume", "must")
    assert "changed from" not in output_of(Forked(flags(demo_data, tmp_path, *more)).wait())
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
    assert epochs.neg_log_likelihood.dropna().is_monotonic_decreasing
    assert (epochs.kl_divergence.dropna() > 0).all()
    assert "kl_weight" not in epochs or epochs.kl_weight.isna().all()
    assert (whole / "results/kl.png").stat().st_size > 0


def test_every_mode_takes_it(whole, demo_data, tmp_path):
    modes = (
        "--test", "--inference_benchmark", "--recommend", "--output", tmp_path / "lists.csv",
        "--export", tmp_path / "export", "--similar_items", "1",
    )  # fmt: skip
    stdout = output_of(run_main(*flags(demo_data, whole, *modes, "--log_path", tmp_path / "log")))
    assert "Nearest to item 1" in stdout
    assert (
        "Taken from the checkpoint: --model recvae --hidden_dim 32 --latent_dim 8 --encoder dense "
        "--decoder linear --prior composite --kl_per_item 0.005."
    ) in " ".join(stdout.split())
    dataset = open_dataset(demo_data, "synthetic")
    users = (dataset.train_user_ids, dataset.validation.user_ids, dataset.test.user_ids)
    lists = pd.read_csv(tmp_path / "lists.csv")
    assert lists.userId.nunique() == sum(map(len, users))
    assert "RecVAE" in (tmp_path / "export/model_card.md").read_text()


def test_another_model_is_refused_with_the_part_that_differs(whole, demo_data):
    done = run_main(*flags(demo_data, whole, "--test", *MODEL, "--prior", "normal"))
    assert "prior is composite in the checkpoint, normal now" in error_of(done)


@pytest.mark.parametrize(
    ("flag", "tolerance"),
    [pytest.param("--xla", 1e-4, marks=pytest.mark.slow), ("--amp", 0.01)],  # compiling takes long
)
def test_xla_and_mixed_precision_train_nearly_the_same(flag, tolerance, whole, demo_data, tmp_path):
    more = (*TRAINING, *MODEL, "--test", flag, "--results_dir", tmp_path / "results")
    output_of(run_main(*flags(demo_data, tmp_path, *more)))
    found, expected = (pd.read_csv(folder / "results/epochs.csv") for folder in (tmp_path, whole))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=tolerance)
