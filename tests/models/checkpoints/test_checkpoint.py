"""One checkpoint: it comes back as it was written, or is named as damaged."""

import dataclasses
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from vae.errors import UserError
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.manager import CheckpointManager
from vae.utils.sealed_json import seal


@pytest.fixture
def sound(tmp_path, save):
    """A checkpoint."""
    folder = CheckpointManager(tmp_path)
    save(folder, 7)
    return folder.at(7)


def test_state_weights_and_ids_come_back_as_they_were(tmp_path, model, save):
    folder = CheckpointManager(tmp_path)
    state = save(folder, 7, epoch=1, losses=[0.1, 1 / 3, 1e-300], best_ndcg=0.1 + 0.2, best_step=5)
    assert checkpoint.verify(folder.at(7)) == state
    np.testing.assert_array_equal(checkpoint.read_item_ids(folder.at(7)), np.arange(9))
    session, saver = model
    expected = session.run({v.op.name: v for v in tf.global_variables()})
    np.testing.assert_equal(checkpoint.read_weights(folder.at(7)), expected)
    session.run(tf.global_variables()[0].assign_add(tf.ones([16, 3])))
    checkpoint.restore(session, saver, folder.at(7))
    np.testing.assert_equal(session.run({v.op.name: v for v in tf.global_variables()}), expected)


def test_a_pickle_among_the_ids_is_not_loaded(sound):
    np.save(sound / "item_ids.npy", np.array([Path()]), allow_pickle=True)
    with pytest.raises(UserError, match=r"item_ids\.npy: the checkpoint is damaged"):
        checkpoint.read_item_ids(sound)


def test_saving_and_loading_leave_no_file_open(sound, model, save):
    before = len([*Path("/proc/self/fd").iterdir()])
    save(CheckpointManager(sound.parent), 8, 9)
    checkpoint.restore(*model, sound.with_name("step-00000009"))
    checkpoint.read_weights(sound.with_name("step-00000009"))
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_change_of_any_byte_is_noticed(sound):
    state, chance = checkpoint.verify(sound), random.Random(0)
    for path in sorted(sound.iterdir()):
        content = path.read_bytes()
        cuts = [content[: chance.randrange(len(content))] for _ in range(30)]
        for turn, damaged in enumerate([*[bytearray(content) for _ in range(300)], *cuts, None]):
            if turn < 300:
                damaged[chance.randrange(len(content))] ^= chance.randrange(1, 256)
            path.unlink() if damaged is None else path.write_bytes(damaged)
            with pytest.raises(UserError, match=f"{path}: "):
                checkpoint.verify(sound)
        path.write_bytes(content)
    assert checkpoint.verify(sound) == state


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"another": 7}, "the checkpoint is damaged (TrainState.__init__() got an unexpected"),
        ({"files": {"../x": "0"}}, "the checkpoint is damaged (it names files outside of"),
        ({"format": 2}, "was written in format 2, this program reads 3; train again, or use the"),
    ],
)
def test_a_sealed_state_of_another_program_is_refused(sound, changes, sentence):
    path = sound / "state.json"
    path.write_text(seal(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=re.escape(f"{path}: {sentence}")):
        checkpoint.verify(sound)


def test_the_name_of_a_checkpoint_is_its_step_or_any_other(sound):
    copy = sound.rename(sound.with_name("copy of it"))
    assert checkpoint.verify(copy).step == 7
    with pytest.raises(UserError, match=r"damaged \(step is 7 in a folder named step-00000008"):
        checkpoint.verify(copy.rename(sound.with_name("step-00000008")))


def test_a_checkpoint_of_another_model_is_refused_with_what_differs_and_what_to_do(sound):
    state = checkpoint.verify(sound)
    checkpoint.check_match(sound, state, state.architecture, "digest")
    other = dataclasses.replace(state.architecture, hidden_dim=4, prior="composite")
    with pytest.raises(UserError) as caught:
        checkpoint.check_match(sound, state, other, "another")
    assert str(caught.value) == (
        f"{sound}: trained with another model or other data (hidden_dim is 3 in the checkpoint, "
        "4 now; prior is normal in the checkpoint, composite now; the dataset fingerprint is "
        "digest in the checkpoint, another now); leave these flags out and pass its data, or pass "
        "another --checkpoint_dir."
    )
