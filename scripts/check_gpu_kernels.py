"""Check that every operation of the recipe's graphs has a kernel for NVIDIA GPUs.

::

    make check-gpu-kernels

It needs no GPU, but the TensorFlow wheel for GPUs, in an environment of its own. The graphs of
training and inference are built at the size of MovieLens-20M, for float32, ``--amp`` and ``--xla``,
and each operation that a step executes is looked up among the kernels that this TensorFlow has
registered. With ``--amp`` TensorFlow's rewrite to float16 is applied first; with ``--xla`` the
operations that XLA compiles are looked up among those that it can compile for GPUs.

Prints a Markdown table, which stands in docs/performance.md. Exit codes: 0 if every operation has a
kernel or is in ``ON_HOST``, 1 otherwise, 2 if this TensorFlow is the CPU wheel.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple
from unittest.mock import patch

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow.compat.v1 as tf
from tensorflow.core.framework.kernel_def_pb2 import KernelDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.framework.op_def_pb2 import OpDef
from tensorflow.python.framework.kernels import get_registered_kernels_for_op
from tensorflow.python.framework.op_def_registry import get as op_definition
from tensorflow.python.grappler.tf_optimizer import OptimizeGraph

from vae.config import Architecture, Objective, Training
from vae.models.graph.inference_graph import build_inference_graph
from vae.models.graph.precision import FLOAT16_REWRITE, FLOAT32, Precision
from vae.models.graph.session import compiled
from vae.models.graph.train_step import TrainingStep
from vae.models.graph.vae import VAE
from vae.utils.distributed import Workers

ON_HOST = {
    ("TensorArrayV3", "int32"): "the best items of each chunk of users",
    ("TensorArrayWriteV3", "int32"): "the best items of each chunk of users",
}
"""Operations without a GPU kernel, of a type, that soft placement puts on the host, where they are
cheap: what they hold."""

ML_20M = Architecture(items=20_108)
MAX_USERS = {"training": 24_576, "inference": 10_000}


class Variant(NamedTuple):
    """A combination of flags: its name, and what it changes in the graph."""

    name: str
    precision: Precision
    xla: bool


VARIANTS = (
    Variant("float32", FLOAT32, False),
    Variant("`--amp`", FLOAT16_REWRITE, False),
    Variant("`--xla`", FLOAT32, True),
    Variant("`--amp --xla`", FLOAT16_REWRITE, True),
)


class Operation(NamedTuple):
    """A kind of operation: name, types that select a kernel, and whether XLA is to compile it."""

    name: str
    types: str
    compiled: bool

    def __str__(self) -> str:
        """Return the operation as the table shows it."""
        return f"{self.name} ({self.types})" if self.types else self.name


def main() -> int:
    """Run the check; return the exit code."""
    if not tf.test.is_built_with_cuda():
        print("error: this TensorFlow has no GPU kernels; run make check-gpu-kernels.")
        return 2
    register_xla_kernels()
    # Without a GPU the rewrite to float16 does nothing unless it pretends; no graph runs here.
    os.environ["TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_SIMULATE_GPU"] = "true"
    # The recipe avoids operations that GPUs lack where there is one.
    with patch.object(tf.config, "list_physical_devices", lambda kind: ["GPU"]):
        return print_table()


def print_table() -> int:
    """Print the table; return 1 if an operation has no kernel, else 0."""
    print(f"TensorFlow {tf.__version__}:\n")
    columns = (XLA, GPU, HOST_MEMORY, HOST, MISSING)
    print(f"| Graph | Kinds of operations | {' | '.join(columns)} |")
    print(f"|---|{'---:|' * (1 + len(columns))}")
    places: dict[str, set[str]] = defaultdict(set)
    for graph, build in (("training", training_graph), ("inference", inference_graph)):
        for variant in VARIANTS:
            found = {kind: place(kind, node) for kind, node in operations(build, variant).items()}
            counts = [list(found.values()).count(name) for name in columns]
            print(f"| {graph}, {variant.name} | {len(found)} | {' | '.join(map(str, counts))} |")
            for kind, name in found.items():
                places[name].add(str(kind))
    for name in (HOST_MEMORY, HOST, MISSING):
        print(f"\n{name[0].upper()}{name[1:]}: {', '.join(sorted(places[name])) or 'none'}.")
    return int(bool(places[MISSING]))


XLA, GPU, HOST_MEMORY, HOST, MISSING = (
    "compiled by XLA",
    "GPU kernel",
    "GPU kernel, data in host memory",
    "on the host",
    "without a kernel",
)


def training_graph(variant: Variant) -> list[tf.Tensor | tf.Operation]:
    """Build the graph of a training step; return what a step fetches."""
    objective, worker, users = Objective(lam=0.01), Workers(), MAX_USERS["training"]
    with compiled(variant.xla):
        vae = VAE(ML_20M, 0)
        step = TrainingStep(vae, objective, Training(), 0, worker, users, variant.precision)
    return [
        step.update,
        step.totals,
        step.requests,
        step.global_step_before,
        *step.scalars.values(),
    ]


def inference_graph(variant: Variant) -> list[tf.Tensor | tf.Operation]:
    """Build the graph of validation, test and recommendation; return what it fetches."""
    with compiled(variant.xla):
        graph = build_inference_graph(VAE(ML_20M, 0), 100, MAX_USERS["inference"])
    return [graph.items, graph.scores]


def operations(
    build: Callable[[Variant], list[tf.Tensor | tf.Operation]], variant: Variant
) -> dict[Operation, NodeDef]:
    """Return the operations of a graph, as built and as rewritten, and a node of each kind."""
    with tf.Graph().as_default() as graph:
        fetches = [getattr(fetch, "op", fetch) for fetch in build(variant)]
        graph.get_collection_ref("train_op")[:] = fetches  # what the rewrite keeps
        settings = tf.ConfigProto()
        variant.precision.configure(settings)
        settings.graph_options.rewrite_options.min_graph_nodes = -1
        names = [fetch.name for fetch in fetches]
        built = tf.graph_util.extract_sub_graph(graph.as_graph_def(), names)
        rewritten = OptimizeGraph(settings, tf.train.export_meta_graph())
    if variant.precision.rewritten:
        tf.mixed_precision.disable_mixed_precision_graph_rewrite()
    return {kind(node): node for node in (*built.node, *rewritten.node)}


def kind(node: NodeDef) -> Operation:
    """Return the kind of a node: one of the same kind has the same kernels."""
    constraints = {c.name for kernel in registered(node.op) for c in kernel.constraint}
    types = (tf.as_dtype(t).name for name in sorted(constraints) for t in types_of(node, name))
    is_compiled = "_XlaCompile" in node.attr and node.attr["_XlaCompile"].b
    return Operation(node.op, ", ".join(types), is_compiled)


def place(operation: Operation, node: NodeDef) -> str:
    """Return where TensorFlow runs a node on a machine with a GPU."""
    kernels = [kernel for kernel in registered(node.op) if serves(kernel, node)]
    # What XLA cannot compile, a loop for example, runs as without it.
    if operation.compiled and any(kernel.device_type == "XLA_GPU_JIT" for kernel in kernels):
        return XLA
    kernels = [kernel for kernel in kernels if kernel.device_type in ("GPU", "DEFAULT")]
    if not kernels:
        return HOST if (node.op, operation.types) in ON_HOST else MISSING
    # A kernel for GPUs takes precedence over one for all devices.
    best = max(kernels, key=lambda kernel: kernel.device_type == "GPU")
    arguments = {argument.name for argument in arguments_of(op_definition(node.op))}
    in_host_memory = arguments and arguments <= set(best.host_memory_arg)
    return HOST_MEMORY if in_host_memory else GPU


def registered(operation: str) -> list[KernelDef]:
    """Return the kernels of an operation for all devices."""
    return list(get_registered_kernels_for_op(operation).kernel)


def serves(kernel: KernelDef, node: NodeDef) -> bool:
    """Return whether a kernel takes the types of a node."""
    return not kernel.label and all(
        set(types_of(node, constraint.name)) <= set(constraint.allowed_values.list.type)
        for constraint in kernel.constraint
    )


def types_of(node: NodeDef, attribute: str) -> Iterator[int]:
    """Yield the types in an attribute of a node."""
    value = node.attr[attribute]
    yield from value.list.type or ([value.type] if value.type else [])


def arguments_of(definition: OpDef) -> Iterator[OpDef.ArgDef]:
    """Yield the inputs and outputs of an operation."""
    yield from definition.input_arg
    yield from definition.output_arg


def register_xla_kernels() -> None:
    """Make TensorFlow register what XLA can compile, which it does when it first compiles."""
    with tf.Graph().as_default(), tf.Session() as session:
        with compiled(True):
            total = tf.constant([1.0]) + tf.constant([2.0])
        session.run(total)


if __name__ == "__main__":
    sys.exit(main())
