"""scripts/check_gpu_kernels.py: what it looks up, and how a kernel is found."""

import pytest
import tensorflow.compat.v1 as tf
from tensorflow.core.framework.kernel_def_pb2 import KernelDef
from tensorflow.core.framework.node_def_pb2 import NodeDef

from scripts import check_gpu_kernels as check


@pytest.fixture(autouse=True)
def _a_machine_with_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"])
    monkeypatch.setenv("TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_SIMULATE_GPU", "true")


@pytest.mark.parametrize("build", [check.training_graph, check.inference_graph])
def test_graphs_for_gpus_avoid_operations_that_have_no_kernel_there(build):
    found = {str(kind) for kind in check.operations(build, check.VARIANTS[0])}
    assert "MatMul (float32)" in found
    # Neither has a kernel in the GPU wheel of 2.21.0.
    assert not any(kind.startswith(("Pad (int64", "SparseTensorDenseAdd")) for kind in found)


def test_amp_at_full_size_moves_matmuls_to_float16_and_leaves_softmax_and_adam_in_float32():
    found = {str(kind) for kind in check.operations(check.training_graph, check.VARIANTS[1])}
    assert {"MatMul (float16)", "Softmax (float32)", "ResourceApplyAdam (float32)"} <= found
    assert not found & {"Softmax (float16)", "ResourceApplyAdam (float16)"}


@pytest.mark.parametrize(
    ("device", "allowed", "host", "expected"),
    [
        ("GPU", tf.float32, [], check.GPU),
        ("DEFAULT", tf.float32, ["a", "b", "product"], check.HOST_MEMORY),
        ("GPU", tf.int32, [], check.MISSING),
        ("CPU", tf.float32, [], check.MISSING),
    ],
    ids=["has one", "data on the host", "other type", "other device"],
)
def test_a_kernel_counts_for_its_device_and_types(monkeypatch, device, allowed, host, expected):
    kernel = KernelDef(op="MatMul", device_type=device, host_memory_arg=host)
    constraint = kernel.constraint.add(name="T")
    constraint.allowed_values.list.type.append(allowed.as_datatype_enum)
    monkeypatch.setattr(check, "registered", lambda operation: [kernel])
    node = NodeDef(op="MatMul")
    node.attr["T"].type = tf.float32.as_datatype_enum
    assert check.place(check.kind(node), node) == expected


def test_the_cpu_wheel_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: False)
    assert check.main() == 2
    assert "make check-gpu-kernels" in capsys.readouterr().out
