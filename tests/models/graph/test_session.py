"""What a session refuses before it is opened."""

import pytest
import tensorflow.compat.v1 as tf

from vae.errors import UserError
from vae.models.graph.session import open_session
from vae.utils.distributed import Workers


@pytest.fixture
def one_gpu(monkeypatch):
    """A machine that claims to have one GPU."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])


def test_a_worker_without_a_gpu_of_its_own_is_an_error(one_gpu):
    worker = Workers()
    worker.local_rank = 1
    with (
        pytest.raises(UserError, match="local rank 1 has no GPU: this host has 1"),
        open_session(worker),
    ):
        pass


def test_when_memory_runs_out_a_sentence_says_what_to_lower():
    message = "OOM when allocating tensor with shape[24576,20112]\n\t [[node MatMul]]\nHint: ..."
    with (
        pytest.raises(UserError) as caught,
        tf.Graph().as_default(),
        open_session(Workers()),
    ):
        raise tf.errors.ResourceExhaustedError(None, None, message)
    assert caught.value.exit_code == 1
    assert str(caught.value) == (
        "out of memory: OOM when allocating tensor with shape[24576,20112]; lower "
        "--batch_size_train or --batch_size_validation, or start more workers."
    )
