"""Files of the formats that were released: read as they are, or refused with what to do."""

import shutil

import pytest
from helpers import ROOT, checkpoints, error_of, log_lines, output_of, run_main

from vae.load import store
from vae.models.checkpoints import checkpoint

GOLDEN = ROOT / "tests/golden"
PREPARED = GOLDEN / f"prepared-{store.FORMAT_VERSION}"
CHECKPOINTS = GOLDEN / f"checkpoints-{checkpoint.FORMAT_VERSION}"
EARLIER = sorted({path for path in GOLDEN.iterdir() if path.is_dir()} - {PREPARED, CHECKPOINTS})
FIXES = {"prepared": "prepare_dataset.py again", "checkpoints": "use the version that wrote it"}
FLAGS = (
    "--hidden_dim", 6, "--latent_dim", 3, "--batch_size_train", 25, "--lr", 0.01,
    "--validation_step", 2,
)  # fmt: skip


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


def test_files_of_the_present_formats_give_the_results_that_they_gave(run, tmp_path):
    out = output_of(run(PREPARED, CHECKPOINTS, "--train", "--test", "--epochs", 6))
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


@pytest.mark.parametrize("old", EARLIER, ids=lambda path: path.name)
def test_files_of_an_earlier_format_are_refused_with_what_to_do(old, run):
    kind, number = old.name.split("-")
    present = {"prepared": PREPARED, "checkpoints": CHECKPOINTS}
    error = error_of(run(*(present | {kind: old}).values(), "--test"))
    assert f"was written in format {number}" in error
    assert FIXES[kind] in error
