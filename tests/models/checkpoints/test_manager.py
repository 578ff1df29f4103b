"""Where training starts from: a checkpoint whose state makes sense, or a sentence."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from vae.cli import as_json
from vae.config import Architecture, parse_flags
from vae.errors import UserError
from vae.models.checkpoints import checkpoint
from vae.models.checkpoints.manager import find_start
from vae.models.checkpoints.train_state import TrainState
from vae.utils.atomic import sha256
from vae.utils.distributed import SingleWorker
from vae.utils.sealed_json import seal

ARCHITECTURE = Architecture(items=9, hidden_dim=3, latent_dim=2)
DATASET = SimpleNamespace(train=csr_matrix(np.ones((10, 9), np.uint8)), fingerprint="digest")
FLAGS = ("--train", "--batch_size_train", "4")  # three steps per epoch
STATE = TrainState(
    architecture=dataclasses.asdict(ARCHITECTURE),
    dataset_fingerprint="digest",
    config=as_json(parse_flags(FLAGS)),
    epoch=2,
    batch=1,
    losses=[3.0, 2.0, 1.0],
    seconds=0.5,
    best_ndcg=0.25,
    best_step=3,
    validations_since_best=1,
    step=7,
)
GONE = object()
DIGEST = "0" * 64

NOT_A_NUMBER = ("7", "", True, None, [], [7], {}, math.nan, math.inf, -math.inf, -1, 10**400)
NOT_AN_INTEGER = (*NOT_A_NUMBER, 7.0, 10**9)
NO_STRING = (None, 7, True, [], {})
NO_OBJECT = (None, 7, "text", [], [["a", 1]])

WRONG = {
    "files": (
        GONE,
        *NO_OBJECT,
        {},
        {"variables.index": DIGEST},
        {"variables.data-00000-of-00001": DIGEST},
        {"variables.index": None, "variables.data-00000-of-00001": DIGEST},
        {"variables.index": "short", "variables.data-00000-of-00001": DIGEST},
        {"../variables.index": DIGEST},
        {"/etc/passwd": DIGEST},
        {"..": DIGEST},
        {"": DIGEST},
        {"state.json": DIGEST},
    ),
    "architecture": (
        GONE,
        *NO_OBJECT,
        {},
        {"items": 9, "hidden_dim": 3, "latent_dim": 2},
        {**STATE.architecture, "depth": 2},
        {**STATE.architecture, "items": "9"},
        {**STATE.architecture, "hidden_dim": 3.0},
        {**STATE.architecture, "latent_dim": True},
        {**STATE.architecture, "hidden_dim": 0},
        {**STATE.architecture, "items": 10**400},
        {**STATE.architecture, "activation": None},
        {**STATE.architecture, "activation": "step"},
    ),
    "dataset_fingerprint": (GONE, *NO_STRING),
    "config": (GONE, *NO_OBJECT),
    "epoch": (GONE, *NOT_AN_INTEGER, 0, 8),
    "batch": (GONE, *NOT_AN_INTEGER, 3),
    "losses": (
        GONE,
        *NO_OBJECT,
        [],
        [1.0, 2.0],
        [1.0] * 4,
        [1.0, 2.0, "3"],
        [1.0, 2.0, None],
        [1.0, 2.0, True],
        [1.0, 2.0, math.nan],
        [1.0, 2.0, math.inf],
        [[1.0], [2.0], [3.0]],
        {"0": 1.0, "1": 2.0, "2": 3.0},
    ),
    "seconds": (GONE, *NOT_A_NUMBER),
    "best_ndcg": (GONE, *NOT_A_NUMBER, 1.5),
    "best_step": (GONE, *NOT_AN_INTEGER, 0, 8),
    "validations_since_best": (GONE, *NOT_AN_INTEGER, 3),
    "step": (GONE, *NOT_AN_INTEGER, 2, 22),
    "validation_is_due": (GONE, None, 0, 1, "false", [], True),
    "summary": (*NO_OBJECT, {"final_ndcg@100": "high"}, {"final_ndcg@100": math.nan}),
    "another": (None, 7),
}


def write(folder, **changes):
    """A checkpoint whose files are sound and whose state holds these values as well."""
    folder.mkdir(parents=True)
    for name in ("variables.index", "variables.data-00000-of-00001"):
        (folder / name).write_bytes(b"weights")
    digests = {path.name: sha256(path) for path in folder.iterdir()}
    document = {
        "format": checkpoint.FORMAT_VERSION,
        "files": digests,
        **dataclasses.asdict(STATE),
        **changes,
    }
    sealed = seal({n: value for n, value in document.items() if value is not GONE})
    (folder / checkpoint.STATE_FILE).write_text(sealed)


def start(folder, *more):
    flags = (*FLAGS, "--checkpoint_dir", str(folder), *more)
    return find_start(parse_flags(flags), ARCHITECTURE, DATASET, SingleWorker(""))


def test_a_sound_state_is_where_training_goes_on(tmp_path):
    write(tmp_path / "step-00000007")
    write(tmp_path / "step-00000003", step=3, epoch=1, batch=0, validations_since_best=0)
    found = start(tmp_path)
    assert found.checkpoint == tmp_path / "step-00000007"
    assert dataclasses.replace(found.state, config=STATE.config) == STATE


@pytest.mark.parametrize("name", WRONG)
def test_a_state_of_wrong_types_or_impossible_values_is_damaged(tmp_path, name):
    for number, value in enumerate(WRONG[name]):
        folder = tmp_path / str(number)
        write(folder, **{name: value})
        with pytest.raises(UserError, match="the checkpoint is damaged") as caught:
            start(tmp_path, "--resume", str(folder))
        sentence = str(caught.value)
        assert sentence.startswith(f"{folder / 'state.json'}: "), value
        assert len(sentence) < 500 + 2 * len(str(folder))


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(tmp_path):
    write(tmp_path / "step-00000008")
    with pytest.raises(UserError, match=r"damaged \(step is 7"):
        start(tmp_path)
    write(tmp_path / "copy of it")
    assert start(tmp_path, "--resume", str(tmp_path / "copy of it")).state.step == 7
