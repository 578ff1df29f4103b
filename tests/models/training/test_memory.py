"""A model that cannot fit into memory is refused before it is built."""

import dataclasses
import os
import resource

import pytest
import tensorflow.compat.v1 as tf

from vae.config import Architecture, Config
from vae.errors import UserError
from vae.models.graph.vae import VAE
from vae.models.training import memory
from vae.models.training.memory import available_bytes, check_host, check_memory, needed_bytes
from vae.utils.distributed import SingleWorker

SMALL = Architecture(items=9, hidden_dim=3, latent_dim=2)
HUGE = Architecture(items=1200, hidden_dim=2**20)


def bytes_of(variables):
    return [variable.shape.num_elements() * 4 for variable in variables]


def test_what_a_process_must_hold_at_least():
    with tf.Graph().as_default():
        vae = VAE(SMALL, seed=0)
        weights = sum(bytes_of(vae.variables))
        gradient = max(sum(bytes_of(layer)) for layer in vae.layers)
    for train, loaded, gpu, expected in (
        (True, False, False, 3 * weights + gradient),
        (True, True, False, 3 * weights + gradient),
        (False, True, False, 2 * weights),
        (False, False, False, weights),
        (True, False, True, weights),
        (False, True, True, weights),
        (False, False, True, 0),
    ):
        assert needed_bytes(SMALL, train, loaded, gpu) == expected


def test_the_composite_prior_takes_another_encoder_in_training():
    dense = Architecture(items=9, hidden_dim=3, latent_dim=2, encoder="dense", decoder="linear")
    recvae = dataclasses.replace(dense, prior="composite")
    encoder = 4 * ((16 + 1) * 3 + 4 * (3 + 1) * 3 + (3 + 1) * 4)
    extra = [needed_bytes(recvae, train, True, False) - needed_bytes(dense, train, True, False)
             for train in (True, False)]  # fmt: skip
    assert extra == [encoder, 0]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_model_is_refused_where_a_byte_is_missing(train, gpu, workers):
    needed = workers * needed_bytes(HUGE, train, True, gpu)
    check_memory(HUGE, train, True, gpu, needed, workers)
    with pytest.raises(UserError) as caught:
        check_memory(HUGE, train, True, gpu, needed - 1, workers)
    sentence = str(caught.value)
    assert sentence.startswith("--hidden_dim 1048576 and --latent_dim 200: with 1,200 items")
    assert sentence.count(f"{needed / 1e9:.1f} GB") == 2
    assert ("for 3 workers" in sentence) == (workers == 3)
    assert sentence.endswith("lower --hidden_dim or --latent_dim.")


def test_a_kernel_that_tensorflow_cannot_train_is_refused_however_much_memory_there_is():
    def check(items, hidden_dim, train=True):
        check_memory(Architecture(items, hidden_dim), train, True, False, available=1 << 60)

    check(2048, 2**20)
    check(3_579_136, 600)
    check(2049, 2**20, train=False)
    with pytest.raises(UserError, match=r"1048576: .* 2,155,872,256 elements.* to 1044495\.$"):
        check(2049, 2**20)
    with pytest.raises(UserError, match=r"600: with 3,579,200 items .* to 599\.$"):
        check(3_579_200, 600)


def host(root, groups, limits):
    """The files of a host: this process's control groups, and limits by path."""
    for path, text in {"proc/self/cgroup": groups, **limits}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"
PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {f"{V2}/memory.max": "7000\n"}, 7000),
        ("0::/\n", {f"{V2}/memory.max": "max\n"}, PHYSICAL),
        ("0::/\n", {}, PHYSICAL),
        ("0::/a/b\n", {f"{V2}/a/memory.max": "5000\n", f"{V2}/a/b/memory.max": "max"}, 5000),
        ("0::/a/b\n", {f"{V2}/a/memory.max": "9000\n", f"{V2}/a/b/memory.max": "6000"}, 6000),
        ("3:cpu,memory:/a\n1:cpu:/\n0::/\n", {f"{V1}/a/memory.limit_in_bytes": "4000\n"}, 4000),
        ("3:memory:/docker/1\n", {f"{V1}/memory.limit_in_bytes": "3000\n"}, 3000),
        ("3:memory:/\n", {f"{V1}/memory.limit_in_bytes": "9223372036854771712\n"}, PHYSICAL),
        ("3:cpu:/\n", {f"{V1}/memory.limit_in_bytes": "3000\n"}, PHYSICAL),
    ],
)
def test_memory_is_what_the_host_and_the_control_groups_leave(tmp_path, groups, limits, expected):
    assert available_bytes(root=host(tmp_path, groups, limits)) == expected


def test_each_worker_has_an_address_space_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1000, 2000))
    assert available_bytes(root=tmp_path) == 1000
    assert available_bytes(workers_here=3, root=tmp_path) == 3000


def test_a_host_without_control_groups_has_its_memory(tmp_path):
    assert available_bytes(root=tmp_path) == PHYSICAL


def test_a_host_without_proc_or_threads_is_refused_where_tensorflow_would_abort(
    monkeypatch, tmp_path
):
    config, worker = Config.of(train=True), SingleWorker("1 worker")
    check_host(config, SMALL, worker)
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "exe")
    with pytest.raises(UserError, match="exe: file not found, and TensorFlow needs it; mount /pro"):
        check_host(config, SMALL, worker)
    monkeypatch.undo()

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", start)
    with pytest.raises(UserError, match=r"cannot start \d+ threads; raise the limit on processes"):
        check_host(config, SMALL, worker)
