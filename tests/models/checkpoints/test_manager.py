"""The folder of checkpoints: all of them whole, and no more than asked for."""

import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from vae.errors import UserError
from vae.models.checkpoints import checkpoint, manager
from vae.models.checkpoints.manager import CheckpointManager
from vae.models.inference.trained_model import load_model
from vae.utils.atomic import temporary_file
from vae.utils.distributed import Workers


@pytest.fixture
def folder(tmp_path):
    return CheckpointManager(tmp_path)


def test_the_newest_and_the_best_are_kept(folder, save):
    save(folder, 1, 2)
    assert folder.best() == folder.at(2)  # before any validation
    save(folder, 3, 4, 5, 6, best_ndcg=0.5, best_step=2)
    assert folder.steps() == [2, 5, 6]
    assert folder.latest() == folder.at(6)
    assert folder.best() == folder.at(2)
    assert {path.name for path in folder.path.iterdir()} == {folder.at(s).name for s in (2, 5, 6)}


def test_a_best_checkpoint_that_is_gone_is_an_error(folder, save):
    save(folder, 3, best_ndcg=0.5, best_step=2)
    with pytest.raises(UserError, match="step-00000002: the best checkpoint is missing"):
        folder.best()


def test_only_folders_of_that_name_are_checkpoints(folder):
    (folder.path / "step-00000009").touch()
    for name in ("step-x", "step-1", ".writing-12", "replaced-1"):
        (folder.path / name).mkdir()
    assert folder.steps() == []
    assert folder.best() is None
    assert CheckpointManager(folder.path / "none").best() is None


class Crash(BaseException):
    """What ends a program and is no error that it handles."""


def test_a_crash_at_any_step_of_a_save_leaves_the_checkpoints_whole(
    folder, model, save, monkeypatch
):
    steps, crash_at = [], []

    def watch(owner, name):
        function = getattr(owner, name)

        def step(*args, **kwargs):
            steps.append(name)
            if len(steps) in crash_at:
                raise Crash
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, step)

    for owner, *names in (
        (model[1], "save"),
        (checkpoint, "sha256", "sync"),
        (manager, "sync"),
        (shutil, "rmtree"),
        (Path, "mkdir", "write_bytes", "rename"),
    ):
        for name in names:
            watch(owner, name)
    save(folder, 1, keep=1)
    steps.clear()
    save(folder, 2, keep=1)  # and remove the first
    assert steps.count("rename") == 2
    seen = set()
    for place in range(1, len(steps) + 1):
        step = 2 + place
        steps.clear()
        crash_at[:] = [place]
        with pytest.raises(Crash):
            save(folder, step, keep=1)
        crash_at.clear()
        newest = folder.latest()
        assert checkpoint.verify(newest).step in (step - 1, step)
        assert len(folder.steps()) <= 2
        seen.add(newest == folder.at(step))
        folder.prepare(1)
        save(folder, step, keep=1)
        assert [path.name for path in folder.path.iterdir()] == [folder.at(step).name]
    assert seen == {False, True}


def test_a_checkpoint_from_before_a_validation_is_brought_up_to_its_result(folder, model, save):
    before = save(folder, 5, epoch=1, validation_is_due=True)
    assert checkpoint.verify(folder.at(5)).validation_is_due
    weights = checkpoint.read_weights(folder.at(5))
    model[0].run(tf.global_variables_initializer())
    after = before.after_validation(0.25)
    folder.save(after, keep=2, write=pytest.fail)
    assert checkpoint.verify(folder.at(5)) == after
    assert not after.validation_is_due
    assert [path.name for path in folder.path.iterdir()] == ["step-00000005"]
    np.testing.assert_equal(checkpoint.read_weights(folder.at(5)), weights)


def test_what_killed_runs_left_is_removed_and_the_rest_is_not(folder, save):
    save(folder, 1)
    for name in (".writing-12", ".mine"):
        (folder.path / name).mkdir()
        (folder.path / name / "file").touch()
    with temporary_file(folder.path / "others.csv") as of_a_running_process:
        of_a_running_process.touch()
        folder.prepare(checkpoint_bytes=1)
        assert of_a_running_process.exists()
    assert {path.name for path in folder.path.iterdir()} == {"step-00000001", ".mine"}


def test_without_room_for_a_checkpoint_training_does_not_begin(folder):
    with pytest.raises(UserError, match="MiB are free and a checkpoint takes"):
        folder.prepare(1 << 60)


def test_later_checkpoints_are_set_aside_whole(folder, save):
    assert folder.set_aside(after=-1) is None
    save(folder, 1, 2, 3, keep=9)
    assert folder.set_aside(after=1) == folder.path / "replaced-1"
    assert folder.steps() == [1]
    assert CheckpointManager(folder.path / "replaced-1").steps() == [2, 3]
    assert folder.set_aside(after=-1) == folder.path / "replaced-2"


@pytest.fixture
def load(folder, new):
    """Loads the latest or the best model of the folder, as ``--test`` does."""

    def load(which):
        dataset = SimpleNamespace(fingerprint=new.dataset_fingerprint, grew_from={})
        log = SimpleNamespace(say=lambda _: None)
        return load_model(folder.path, which, new.architecture, dataset, Workers(), log)

    return load


READS = [
    *itertools.product(["best", "latest"], ["verify", "read_weights", "sha256", "_read_state"]),
    ("best", "read_state"),
]
"""Functions of a reader; a training may remove the checkpoint before or after any of them."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("which", "name"), READS)
def test_a_reader_of_a_checkpoint_that_a_training_removes_reads_the_next(
    which, name, after, folder, save, load, monkeypatch
):
    save(folder, 1, keep=1, best_ndcg=0.25, best_step=1)
    read = getattr(checkpoint, name)

    def raced(*args):
        monkeypatch.undo()
        result = read(*args) if after else None
        save(folder, 2, keep=1, best_ndcg=0.5, best_step=2)  # as another process does
        return result if after else read(*args)

    monkeypatch.setattr(checkpoint, name, raced)
    loaded = load(which)
    assert folder.steps() == [2]
    # Weights that were read before the removal are whole, too.
    read_before = name == "read_weights" and after
    assert ("step 1 " if read_before else "step 2 ") in loaded.metadata["checkpoint"]


def after_verifying(monkeypatch, change):
    """Have the reader's checkpoint changed, as by a training, after it was verified."""
    verify = checkpoint.verify

    def raced(path):
        state = verify(path)
        change(path)
        return state

    monkeypatch.setattr(checkpoint, "verify", raced)


def test_a_reader_whose_checkpoint_is_removed_every_time_says_so(folder, save, load, monkeypatch):
    save(folder, *range(1, 22), keep=21)
    after_verifying(monkeypatch, shutil.rmtree)
    with pytest.raises(UserError, match=r"a training removed the checkpoint in each of 20 attempt"):
        load("latest")
    assert folder.steps() == [1]


def test_weights_that_are_gone_after_they_were_verified_are_a_sentence(
    folder, save, load, monkeypatch
):
    save(folder, 1)
    after_verifying(monkeypatch, lambda path: (path / "variables.index").unlink())
    with pytest.raises(UserError, match=r"step-00000001/variables: the checkpoint is damaged"):
        load("latest")
