"""Files of the formats that were released: read as they are, or refused with what to do."""

import json
import shutil

import pytest
from helpers import ROOT, checkpoints, log_lines, run_main

from vae.load import store
from vae.models.checkpoints import checkpoint
from vae.utils.sealed_json import seal

GOLDEN = ROOT / "tests/golden"
PREPARED = GOLDEN / f"prepared-{store.FORMAT_VERSION}"
CHECKPOINTS = GOLDEN / f"checkpoints-{checkpoint.FORMAT_VERSION}"
FLAGS = (
    "--hidden_dim", 6, "--latent_dim", 3, "--batch_size_train", 25, "--lr", 0.01,
    "--validation_step", 2,
)  # fmt: skip


def formats(kind):
    """The formats of which there are files."""
    return sorted(int(path.name.rpartition("-")[2]) for path in GOLDEN.glob(f"{kind}-*"))


@pytest.fixture
def run(tmp_path):
    """Runs main.py on copies of these files of prepared data and checkpoints."""

    def run(prepared, saved, *more):
        shutil.copytree(prepared, tmp_path / "data/golden/preprocessed")
        shutil.copytree(saved, tmp_path / "ckpt")
        return run_main(
            *more, *FLAGS, "--dataset", "golden", "--data_dir", tmp_path / "data",
            "--checkpoint_dir", tmp_path / "ckpt", "--log_path", tmp_path / "log",
        )  # fmt: skip

    return run


def of_format(kind, number, present, numbered, folder):
    """The files of a format; where there are none, those of the present one with that number."""
    if number in formats(kind):
        return GOLDEN / f"{kind}-{number}"
    shutil.copytree(GOLDEN / f"{kind}-{present}", folder)
    for path in folder.rglob("*.json"):
        document = json.loads(path.read_text())
        if numbered in document:
            document = json.loads(path.read_text()) | {numbered: number}
            path.write_text(seal(document))
    return folder


def test_there_are_files_of_the_present_formats():
    assert store.FORMAT_VERSION in formats("prepared")
    assert checkpoint.FORMAT_VERSION in formats("checkpoints")


def test_files_of_the_present_formats_give_the_results_that_they_gave(run, tmp_path):
    code, out, err = run(PREPARED, CHECKPOINTS, "--train", "--test", "--epochs", 6)
    assert code == 0, err
    assert "step-00000015 at step 15 (5 epochs completed)." in out
    assert [path.name for path in checkpoints(tmp_path)][-1] == "step-00000018"
    epoch, summary = (
        next(line["data"] for line in log_lines(tmp_path / "log") if line.get("step") == step)
        for step in ([6], [])
    )
    assert epoch["loss"] == pytest.approx(26.893124994241965, rel=1e-4)
    assert "step-00000006: step 6 (2 epochs completed)" in out
    assert summary["best_ndcg@100"] == 0.2847224015544514
    assert summary["test_ndcg@100"] == pytest.approx(0.32010626057216396, rel=1e-4)
    assert summary["test_recall@20"] == pytest.approx(0.65)


@pytest.mark.parametrize("number", range(1, store.FORMAT_VERSION))
def test_prepared_data_of_an_earlier_format_are_refused_with_what_to_do(number, run, tmp_path):
    files = of_format(
        "prepared", number, store.FORMAT_VERSION, "format_version", tmp_path / "earlier"
    )
    code, _, err = run(files, CHECKPOINTS, "--test")
    assert code == 2
    assert f"was written in format {number}" in err
    assert "prepare_dataset.py again" in err


@pytest.mark.parametrize("number", range(1, checkpoint.FORMAT_VERSION))
def test_checkpoints_of_an_earlier_format_are_refused_with_what_to_do(number, run, tmp_path):
    files = of_format(
        "checkpoints", number, checkpoint.FORMAT_VERSION, "format", tmp_path / "earlier"
    )
    code, _, err = run(PREPARED, files, "--test")
    assert code == 2
    assert f"was written in format {number}" in err
    assert "train again, or use the version that wrote it" in err
