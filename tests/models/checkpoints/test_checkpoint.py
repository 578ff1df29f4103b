"""Checkpoints: whole, verified, and no more of them than asked for."""

import dataclasses
import itertools
import json
import math
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from vae.config import Architecture
from vae.errors import UserError
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints import manager as checkpoint_manager
from vae.models.checkpoints.manager import CheckpointManager
from vae.models.checkpoints.train_state import TrainState
from vae.models.graph.vae import VAE
from vae.models.inference.trained_model import load_model
from vae.utils.atomic import temporary_file
from vae.utils.distributed import SingleWorker
from vae.utils.sealed_json import seal

ARCHITECTURE = Architecture(items=9, hidden_dim=3, latent_dim=2)
NEW = TrainState.new(ARCHITECTURE, "digest", {"lr": 0.1})


@pytest.fixture
def model():
    """A session with a small model, and its saver."""
    with tf.Graph().as_default(), tf.Session() as session:
        VAE(ARCHITECTURE, seed=0)
        session.run(tf.global_variables_initializer())
        yield session, tf.train.Saver(max_to_keep=None)


def state_at(step, **fields):
    return dataclasses.replace(NEW, step=step, **fields)


def save(folder, model, *steps, keep=2, **fields):
    for step in steps:
        folder.save(*model, state_at(step, **fields), keep)


def test_state_and_weights_come_back_as_they_were(tmp_path, model):
    state = state_at(7, epoch=1, losses=[0.1, 1 / 3, 1e-300], best_ndcg=0.1 + 0.2, best_step=5)
    folder = CheckpointManager(tmp_path)
    folder.save(*model, state, keep=1)
    assert checkpoint.verify(folder.at(7)) == state
    session, saver = model
    expected = session.run({v.op.name: v for v in tf.global_variables()})
    weights = checkpoint.read_weights(folder.at(7))
    assert set(weights) == set(expected)
    session.run(tf.global_variables()[0].assign_add(tf.ones([16, 3])))
    checkpoint.restore(session, saver, folder.at(7))
    for variable in tf.global_variables():
        np.testing.assert_array_equal(session.run(variable), weights[variable.op.name])


def test_the_newest_and_the_best_are_kept(tmp_path, model):
    folder = CheckpointManager(tmp_path)
    save(folder, model, 1, 2)
    save(folder, model, 3, 4, 5, 6, best_ndcg=0.5, best_step=2)
    assert folder.steps() == [2, 5, 6]
    assert folder.latest() == folder.at(6)
    assert folder.best() == folder.at(2)
    assert {path.name for path in tmp_path.iterdir()} == {folder.at(s).name for s in (2, 5, 6)}


def test_before_any_validation_the_newest_is_the_best(tmp_path, model):
    folder = CheckpointManager(tmp_path / "none")
    assert folder.best() is None
    folder = CheckpointManager(tmp_path)
    save(folder, model, 1, 2)
    assert folder.best() == folder.at(2)


def test_a_best_checkpoint_that_is_gone_is_an_error(tmp_path, model):
    folder = CheckpointManager(tmp_path)
    save(folder, model, 3, best_ndcg=0.5, best_step=2)
    with pytest.raises(UserError, match="step-00000002: the best checkpoint is missing"):
        folder.best()


def test_only_folders_of_that_name_are_checkpoints(tmp_path):
    (tmp_path / "step-00000009").touch()
    for name in ("step-x", "step-1", ".writing-12", "replaced-1"):
        (tmp_path / name).mkdir()
    assert CheckpointManager(tmp_path).steps() == []


class Crash(BaseException):
    """What ends a program and is no error that it handles."""


def test_a_crash_at_any_step_of_a_save_leaves_the_checkpoints_whole(tmp_path, model, monkeypatch):
    steps, crash_at = [], []

    def watched(name, function):
        def step(*args, **kwargs):
            steps.append(name)
            if len(steps) in crash_at:
                raise Crash
            return function(*args, **kwargs)

        return step

    for owner, name in (
        (model[1], "save"),
        (checkpoint, "sha256"),
        (checkpoint, "sync"),
        (checkpoint_manager, "sync"),
        (checkpoint_manager.shutil, "rmtree"),
        (Path, "mkdir"),
        (Path, "write_text"),
        (Path, "rename"),
    ):
        monkeypatch.setattr(owner, name, watched(name, getattr(owner, name)))
    folder = CheckpointManager(tmp_path)
    save(folder, model, 1, keep=1)
    steps.clear()
    save(folder, model, 2, keep=1)  # and remove the first
    assert steps.count("rename") == 2
    seen = set()
    for place in range(1, len(steps) + 1):
        step = 2 + place
        steps.clear()
        crash_at[:] = [place]
        with pytest.raises(Crash):
            save(folder, model, step, keep=1)
        crash_at.clear()
        newest = folder.latest()
        assert checkpoint.verify(newest).step in (step - 1, step)
        assert len(folder.steps()) <= 2
        seen.add(newest == folder.at(step))
        folder.prepare(1)
        save(folder, model, step, keep=1)
        assert [path.name for path in tmp_path.iterdir()] == [folder.at(step).name]
    assert seen == {False, True}


def test_a_checkpoint_from_before_a_validation_is_brought_up_to_its_result(tmp_path, model):
    folder = CheckpointManager(tmp_path)
    before = state_at(5, epoch=1).before_validation()
    folder.save(*model, before, keep=2)
    assert checkpoint.verify(folder.at(5)).validation_is_due
    weights = checkpoint.read_weights(folder.at(5))
    model[0].run(tf.global_variables_initializer())
    after = before.after_validation(0.25)
    folder.save(*model, after, keep=2)
    assert checkpoint.verify(folder.at(5)) == after
    assert not after.validation_is_due
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    for name, value in checkpoint.read_weights(folder.at(5)).items():
        np.testing.assert_array_equal(value, weights[name])


def test_what_killed_runs_left_is_removed_and_the_rest_is_not(tmp_path, model):
    folder = CheckpointManager(tmp_path)
    save(folder, model, 1)
    for name in (".writing-12", ".removing-5", ".mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with temporary_file(tmp_path / "others.csv") as of_a_running_process:
        folder.prepare(checkpoint_bytes=1)
        assert of_a_running_process.parent.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000001", ".mine"}


def test_without_room_for_a_checkpoint_training_does_not_begin(tmp_path):
    with pytest.raises(UserError, match="MiB are free and a checkpoint takes"):
        CheckpointManager(tmp_path).prepare(1 << 60)


def test_later_checkpoints_are_set_aside_whole(tmp_path, model):
    folder = CheckpointManager(tmp_path)
    assert folder.set_aside(after=-1) is None
    save(folder, model, 1, 2, 3, keep=9)
    assert folder.set_aside(after=1) == tmp_path / "replaced-1"
    assert folder.steps() == [1]
    assert CheckpointManager(tmp_path / "replaced-1").steps() == [2, 3]
    assert folder.set_aside(after=-1) == tmp_path / "replaced-2"


def test_a_pickle_among_the_ids_is_not_loaded(tmp_path, model):
    folder = CheckpointManager(tmp_path, np.arange(9))
    save(folder, model, 1)
    np.testing.assert_array_equal(checkpoint.read_item_ids(folder.at(1)), np.arange(9))
    np.save(folder.at(1) / "item_ids.npy", np.array([Path()]), allow_pickle=True)
    with pytest.raises(UserError, match=r"item_ids\.npy: the checkpoint is damaged"):
        checkpoint.read_item_ids(folder.at(1))


def test_saving_and_loading_leave_no_file_open(tmp_path, model):
    folder = CheckpointManager(tmp_path)
    save(folder, model, 1)
    before = len([*Path("/proc/self/fd").iterdir()])
    save(folder, model, 2, 3)
    checkpoint.restore(*model, folder.at(3))
    checkpoint.read_weights(folder.at(3))
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_change_of_any_byte_is_noticed(tmp_path, model):
    folder = CheckpointManager(tmp_path)
    save(folder, model, 1)
    chance = random.Random(0)
    for path in sorted(folder.at(1).iterdir()):
        content = path.read_bytes()
        for _ in range(300):
            damaged = bytearray(content)
            damaged[chance.randrange(len(content))] ^= chance.randrange(1, 256)
            path.write_bytes(damaged)
            with pytest.raises(UserError, match=f"{path}: "):
                checkpoint.verify(folder.at(1))
        for _ in range(30):
            path.write_bytes(content[: chance.randrange(len(content))])
            with pytest.raises(UserError, match=f"{path}: "):
                checkpoint.verify(folder.at(1))
        path.unlink()
        with pytest.raises(UserError, match=f"{path}: "):
            checkpoint.verify(folder.at(1))
        path.write_bytes(content)
    assert checkpoint.verify(folder.at(1)) == state_at(1)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1", '{"format": 1}', "\xff", pytest.param("[" * 10**5, id="deep")],
)
def test_a_state_that_is_none_is_an_error(tmp_path, text):
    (tmp_path / "state.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"state\.json: "):
        checkpoint.read_state(tmp_path)


def test_another_format_version_is_named(tmp_path):
    document = {"format": checkpoint.FORMAT_VERSION + 1, "files": {}}
    (tmp_path / "state.json").write_text(seal(document))
    with pytest.raises(UserError, match="was written in format 3, this program reads 2"):
        checkpoint.read_state(tmp_path)


def test_another_model_and_other_data_are_named():
    other = Architecture(items=9, hidden_dim=4, latent_dim=2)
    with pytest.raises(
        UserError, match=r"hidden_dim is 3 there and 4 here.*other --checkpoint_dir"
    ):
        checkpoint.check_match("x", NEW, other, "digest")
    with pytest.raises(UserError, match="the dataset fingerprint is"):
        checkpoint.check_match("x", NEW, ARCHITECTURE, "another")
    checkpoint.check_match("x", NEW, ARCHITECTURE, "digest")


def test_a_state_counts_steps_epochs_and_validations():
    state = NEW.after_step(np.float32([3, 2, 1]), 0.5).after_step(np.float32([1, 1, 1]), 0.25)
    assert (state.step, state.epoch, state.batch) == (2, 0, 2)
    assert (state.losses, state.seconds) == ([4.0, 3.0, 2.0], 0.75)
    assert state.position() == "step 2 (0 epochs completed, batch 2 of the next)"
    state = state.after_epoch()
    assert (state.step, state.epoch, state.batch, state.seconds) == (2, 1, 0, 0)
    assert state.losses == NEW.losses
    state = state.after_validation(0.3).after_validation(0.3).after_validation(0.2)
    assert (state.best_ndcg, state.best_step, state.validations_since_best) == (0.3, 2, 2)
    assert state.after_validation(0.4).validations_since_best == 0
    assert state.after_validation(math.nan).best_ndcg == 0.3
    assert NEW.after_validation(math.nan).best_step is None
    assert json.loads(json.dumps(dataclasses.asdict(state))) == dataclasses.asdict(state)


@pytest.fixture
def load(tmp_path):
    """Loads the latest or the best model of the folder, as ``--test`` does."""

    def load(which):
        return load_model(
            SimpleNamespace(checkpoint_dir=tmp_path, checkpoint=which),
            SimpleNamespace(fingerprint="digest"),
            ARCHITECTURE,
            SingleWorker(""),
            SimpleNamespace(say=lambda _: None),
        )

    return load


READS = [
    *itertools.product(["best", "latest"], ["verify", "read_weights", "sha256", "_read_document"]),
    ("best", "read_state"),
]
"""Functions of a reader; a training may remove the checkpoint before or after any of them."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("which", "name"), READS)
def test_a_reader_of_a_checkpoint_that_a_training_removes_reads_the_next(
    which, name, after, tmp_path, model, load, monkeypatch
):
    folder = CheckpointManager(tmp_path)
    save(folder, model, 1, keep=1, best_ndcg=0.25, best_step=1)
    read, races = getattr(checkpoint, name), []

    def race():
        if not races:
            races.append(name)
            with monkeypatch.context() as training:  # which is another process
                training.setattr(checkpoint, name, read)
                save(folder, model, 2, keep=1, best_ndcg=0.5, best_step=2)

    def raced(*args):
        if not after:
            race()
        result = read(*args)
        if after:
            race()
        return result

    monkeypatch.setattr(checkpoint, name, raced)
    loaded = load(which)
    assert races
    assert folder.steps() == [2]
    # Weights that were read before the removal are whole, too.
    read_before = name == "read_weights" and after
    assert ("step 1 " if read_before else "step 2 ") in loaded.metadata["checkpoint"]


def test_a_reader_whose_checkpoint_is_removed_every_time_says_so(
    tmp_path, model, load, monkeypatch
):
    folder = CheckpointManager(tmp_path)
    save(folder, model, 1)
    reads = []

    def raced(path):
        reads.append(path)
        path.rename(folder.at(len(reads) + 1))
        return read(path)

    read = checkpoint.verify
    monkeypatch.setattr(checkpoint, "verify", raced)
    with pytest.raises(UserError, match=r"a training removed the checkpoint in each of 20 attempt"):
        load("latest")
    assert len(reads) == 20


def test_weights_that_are_gone_after_they_were_verified_are_a_sentence(
    tmp_path, model, load, monkeypatch
):
    folder = CheckpointManager(tmp_path)
    save(folder, model, 1)
    verify = checkpoint.verify

    def raced(path):
        state = verify(path)
        (path / "variables.index").unlink()
        return state

    monkeypatch.setattr(checkpoint, "verify", raced)
    with pytest.raises(UserError, match=r"step-00000001/variables: the checkpoint is damaged"):
        load("latest")
