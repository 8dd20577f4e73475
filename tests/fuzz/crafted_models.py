"""Model files that are made to harm: HDF5 as Keras writes it, bundles whose card vouches for what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and what follows it."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header: Any, rest: bytes) -> bytes:
    """A safetensors file with another header."""
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + rest


def resigned(bundle: Path, graph: bytes, precision: str = "fp32") -> None:
    """Another graph in a bundle, whose card is changed to name it."""
    (bundle / ("model.onnx" if precision == "fp32" else "model.int8.onnx")).write_bytes(graph)
    file = bundle / "model.safetensors"
    header, rest = header_of(file.read_bytes())
    card = json.loads(header["__metadata__"]["wsi_her2"])
    card["graphs"][precision] |= {"sha256": hashlib.sha256(graph).hexdigest(), "size_bytes": len(graph)}
    header["__metadata__"]["wsi_her2"] = json.dumps(card)
    file.write_bytes(with_header(header, rest))


class GraphMutation:
    """Changes a graph so that it is still one, and does something else."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def of(self, graph: bytes) -> bytes:
        """A changed graph."""
        import onnx

        model = onnx.load_from_string(graph)
        self._rng.choice(list(GRAPHS.values()))(model)
        return bytes(model.SerializeToString())


def _external(model: Any) -> None:
    """Weights that lie in another file."""
    import onnx

    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../../../../../../etc/passwd"), ("offset", "0"), ("length", "64")):
        entry = weights.external_data.add()
        entry.key, entry.value = key, value


def _huge_constant(model: Any) -> None:
    """A node that makes a tensor of terabytes from eight bytes."""
    import onnx
    from onnx import helper, numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "huge_shape"))
    zero = helper.make_tensor("zero", onnx.TensorProto.FLOAT, [1], [0.0])
    node = helper.make_node("ConstantOfShape", ["huge_shape"], ["huge"], value=zero)
    total = helper.make_node("ReduceMax", ["huge"], ["huge_most"], keepdims=0)
    output = model.graph.output[0].name
    last = next(node for node in model.graph.node if output in node.output)
    last.output[0] = "before"
    added = helper.make_node("Add", ["before", "huge_most"], [output])
    model.graph.node.extend([node, total, added])


def _fourty_gigabytes(model: Any) -> None:
    """As `_huge_constant`, of a size that might just be allocated."""
    _huge_constant(model)
    from onnx import numpy_helper

    next(t for t in model.graph.initializer if t.name == "huge_shape").CopyFrom(
        numpy_helper.from_array(np.array([10**5, 10**5], np.int64), "huge_shape")
    )


def _endless_loop(model: Any) -> None:
    """A loop of 2^62 turns."""
    import onnx
    from onnx import helper, numpy_helper

    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(2**62, np.int64), "turns"),
            numpy_helper.from_array(np.array(True), "go_on"),
            numpy_helper.from_array(np.zeros(1, np.float32), "start"),
        ]
    )
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["still"]),
            helper.make_node("Add", ["value", "value"], ["sum"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", onnx.TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("still", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, [1]),
        ],
    )
    output = model.graph.output[0].name
    last = next(node for node in model.graph.node if output in node.output)
    last.output[0] = "before"
    loop = helper.make_node("Loop", ["turns", "go_on", "start"], ["looped"], body=body)
    model.graph.node.extend([loop, helper.make_node("Add", ["before", "looped"], [output])])


def _other_input(model: Any) -> None:
    """An input of another shape."""
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 10**9


def _two_inputs(model: Any) -> None:
    """A second input, which nobody gives."""
    model.graph.input.append(model.graph.input[0])
    model.graph.input[-1].name = "more"


def _no_output(model: Any) -> None:
    """No output."""
    del model.graph.output[:]


def _huge_weights(model: Any) -> None:
    """Weights that say they have 2^40 values."""
    model.graph.initializer[0].dims[0] = 2**40


def _negative_weights(model: Any) -> None:
    """Weights of a negative size."""
    model.graph.initializer[0].dims[0] = -1


def _large_kernel(model: Any) -> None:
    """A pad of gigabytes around the picture."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "pads":
                attribute.ints[:] = [10**5] * len(attribute.ints)


def _custom_domain(model: Any) -> None:
    """An operator that nobody knows."""
    model.graph.node[0].domain, model.graph.node[0].op_type = "evil", "Run"


def _in_a_circle(model: Any) -> None:
    """A node that waits for itself."""
    model.graph.node[0].input[0] = model.graph.output[0].name


GRAPHS: dict[str, Callable[[Any], None]] = {
    function.__name__.lstrip("_"): function
    for function in (
        _external,
        _huge_constant,
        _fourty_gigabytes,
        _endless_loop,
        _other_input,
        _two_inputs,
        _no_output,
        _huge_weights,
        _negative_weights,
        _large_kernel,
        _custom_domain,
        _in_a_circle,
    )
}
"""Hostile changes of a graph by name."""


def hostile_graph(name: str) -> Callable[[Path], None]:
    """The edit of a bundle that puts one of `GRAPHS` into it."""

    def edit(bundle: Path) -> None:
        import onnx

        model = onnx.load_from_string((bundle / "model.onnx").read_bytes())
        GRAPHS[name](model)
        resigned(bundle, model.SerializeToString())

    return edit


def _header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(bundle: Path) -> None:
        file = bundle / "model.safetensors"
        header, rest = header_of(file.read_bytes())
        file.write_bytes(with_header(change(header) or header, rest))

    return edit


def _raw(content: bytes) -> Callable[[Path], None]:
    return lambda bundle: _overwrite(bundle / "model.safetensors", content)


def _overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _replaced(name: str, put: Callable[[Path], None]) -> Callable[[Path], None]:
    def edit(bundle: Path) -> None:
        (bundle / name).unlink()
        put(bundle / name)

    return edit


def _sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(2**40)


BUNDLES: dict[str, Callable[[Path], None]] = {
    "header of 2^63 bytes": _raw(struct.pack("<Q", 2**63) + b"{}"),
    "header of 4 GB": _raw(struct.pack("<Q", 2**32) + b"{}" + bytes(100)),
    "header that is deep": _raw(struct.pack("<Q", 200_000) + b"[" * 100_000 + b"]" * 100_000),
    "tensor of exabytes": _header(
        lambda h: h | {"network.x": {"dtype": "F32", "shape": [2**30, 2**30], "data_offsets": [0, 4]}}
    ),
    "tensors that overlap": _header(
        lambda h: {k: (v | {"data_offsets": [0, 8]} if k != "__metadata__" else v) for k, v in h.items()}
    ),
    "many empty tensors": _header(
        lambda h: (
            h | {f"network.{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(50_000)}
        )
    ),
    "weights are a link": _replaced("model.safetensors", lambda path: path.symlink_to("/etc/passwd")),
    "weights are a device": _replaced("model.safetensors", lambda path: path.symlink_to("/dev/zero")),
    "graph is a device": _replaced("model.onnx", lambda path: path.symlink_to("/dev/zero")),
    "graph is a pipe": _replaced("model.onnx", os.mkfifo),
    "graph is a folder": _replaced("model.onnx", lambda path: path.mkdir()),
    "graph is a link in a circle": _replaced("model.onnx", lambda path: path.symlink_to(path.name)),
    "graph is a terabyte of nothing": _replaced("model.onnx", _sparse),
    "weights are a terabyte of nothing": _replaced("model.safetensors", _sparse),
    **{f"graph with {name}": hostile_graph(name) for name in GRAPHS},
}
"""Hostile bundles by name: edits of a good one."""


def _h5(write: Callable[[Any, random.Random], None]) -> Callable[[Path, random.Random], None]:
    def made(path: Path, rng: random.Random) -> None:
        import h5py

        path.unlink(missing_ok=True)
        with h5py.File(path, "w") as file:
            write(file, rng)

    return made


def _huge_shape(file: Any, rng: random.Random) -> None:
    shape = rng.choice(((2**20, 2**20), (2**31, 2**31), (2**14, 2**15), (2**63 - 1,)))
    file.create_dataset("model_weights/a/a/kernel:0", shape, np.float32, chunks=(64,) * len(shape))


def _small_numbers_that_grow(file: Any, rng: random.Random) -> None:
    """A gigabyte of int8 becomes four of float32."""
    file.create_dataset("model_weights/a/a/kernel:0", (2**15, 2**15), np.int8, chunks=(64, 64))


def _large_chunk(file: Any, rng: random.Random) -> None:
    """One value in a chunk of gigabytes."""
    file.create_dataset(
        "model_weights/a/a/kernel:0",
        (1, 1),
        np.float32,
        maxshape=(None, None),
        chunks=(2**14, 2**15),
        compression=9,
    )


def _bomb(file: Any, rng: random.Random) -> None:
    """Half a gigabyte of zeros in a file of half a megabyte, many times."""
    for number in range(3):
        values = file.create_dataset(
            f"model_weights/a{number}/a/kernel:0", (2**12, 2**14), np.float32, chunks=(64, 2**14), compression=9
        )
        values[:64] = 0


def _deep_groups(file: Any, rng: random.Random) -> None:
    group = file.create_group("model_weights")
    for _ in range(3000):
        group = group.create_group("a")
    group["kernel:0"] = np.zeros((2, 2), np.float32)


def _many_groups(file: Any, rng: random.Random) -> None:
    for number in range(20_000):
        file.create_group(f"model_weights/{number}")
    file["model_weights/0/kernel:0"] = np.zeros((2, 2), np.float32)


def _deep_config(file: Any, rng: random.Random) -> None:
    file["model_weights/a/a/kernel:0"] = np.zeros((5, 5, 64, 128), np.float32)
    file.attrs["model_config"] = "[" * 30_000 + "]" * 30_000


def _models_in_models(file: Any, rng: random.Random) -> None:
    file["model_weights/a/a/kernel:0"] = np.zeros((5, 5, 64, 128), np.float32)
    text = '{"config":{"layers":[]}}'
    for _ in range(rng.choice((100, 1000))):
        text = f'{{"class_name":"Model","config":{{"name":"m","layers":[{text}]}}}}'
    file.attrs["model_config"] = text[:64_000] if len(text) > 64_000 else text


def _shapes(file: Any, rng: random.Random) -> None:
    """Layers as ATHER2 names them, of shapes that it cannot have."""
    for name in ("stem", "left1", "cbam_mlp1", "cbam_mlp2", "hidden", "out"):
        shape = rng.choice(((0,), (1,), (64, 0), (64, 10**6), (3, 3, 16, 64), (128, 10**7), (1, 1, 1, 1, 1), ()))
        file.create_dataset(f"model_weights/{name}/{name}/kernel:0", shape, np.float32)
    file["model_weights/x/x/kernel:0"] = np.zeros((5, 5, 64, 128), np.float32)


def _units(file: Any, rng: random.Random) -> None:
    """A last layer of a hundred million classes, which takes no room in the file."""
    file.create_dataset("model_weights/block1a_project_conv/x/kernel:0", (3, 3, 32, 16), np.float32)
    file.create_dataset(
        "model_weights/out/out/kernel:0", (1, rng.choice((10**8, 200_000_000))), np.float32, chunks=(1, 1000)
    )


def _outside(file: Any, rng: random.Random) -> None:
    """Weights in another file, in each way that there is."""
    import h5py

    way = rng.randrange(3)
    if way == 0:
        file["model_weights"] = h5py.ExternalLink("/etc/passwd", "/")
    elif way == 1:
        file.create_dataset("model_weights/a/a/kernel:0", (16,), np.uint8, external=[("/etc/passwd", 0, 16)])
    else:
        layout = h5py.VirtualLayout((4, 4), np.float32)
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(4, 4))
        file.create_virtual_dataset("model_weights/a/a/kernel:0", layout)


def _odd_types(file: Any, rng: random.Random) -> None:
    import h5py

    group = file.create_group("model_weights/a/a")
    group["kernel:0"] = np.zeros(3, np.complex64)
    group["bias:0"] = np.array([b"x"])
    group.create_dataset("text", data=["x", "y"], dtype=h5py.string_dtype())
    group.create_dataset("record", (3,), dtype=[("a", "f4"), ("b", "i2")])
    group.create_dataset("empty", dtype="f4", shape=None)
    group.create_dataset("array", (2,), dtype=np.dtype(("f4", (2, 2))))
    file["model_weights"].attrs["layer_names"] = rng.choice((1, b"a", [b"a", b"\xff"], np.zeros(3)))


KERAS: dict[str, Callable[[Path, random.Random], None]] = {
    function.__name__.lstrip("_"): _h5(function)
    for function in (
        _huge_shape,
        _small_numbers_that_grow,
        _large_chunk,
        _bomb,
        _deep_groups,
        _many_groups,
        _deep_config,
        _models_in_models,
        _shapes,
        _units,
        _outside,
        _odd_types,
    )
}
"""Hostile HDF5 files by name."""
