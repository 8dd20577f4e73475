"""Which operators an ONNX file uses, read without a runtime.

A graph can loop for ever or make terabytes out of eight bytes, and a runtime does what it says, some of it already
while it loads. The networks of this package need neither loops nor constants that grow, so that a list of
operators tells theirs from such a graph. It does not bound memory: a wide enough convolution is still a
convolution. The file is a tree of protocol buffers: fields that begin with a number and a kind.
"""

from __future__ import annotations

from collections.abc import Iterator

from wsi_her2.errors import ClassifierError

OPERATORS = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "DequantizeLinear",
        "Div",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
        "Mul",
        "QLinearConv",
        "QuantizeLinear",
        "ReduceMax",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Softmax",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
    }
)
"""Those that exporters write for convolutional networks. None repeats or branches."""

MAX_PAD = 64
"""Pixels that a layer may add on one side: the largest kernels have 7. More is a way to use up memory."""

_GRAPH, _FUNCTIONS = 7, 25  # of a model
_NODE, _INITIALIZER = 1, 5  # of a graph
_OP_TYPE, _ATTRIBUTE, _DOMAIN = 4, 5, 7  # of a node
_NAME, _SUBGRAPH, _INTEGERS, _SUBGRAPHS = 1, 6, 8, 11  # of an attribute
_DATA_LOCATION = 14  # of a tensor
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


def refuse_unknown_operators(graph: bytes) -> None:
    """Refuse a graph that does what the networks of this package never do.

    Parameters
    ----------
    graph : bytes
        An ONNX file.

    Raises
    ------
    ClassifierError
        It is no ONNX file, uses other operators than `OPERATORS`, pads by more than `MAX_PAD`, or keeps weights in
        other files.
    """
    try:
        _check_model(memoryview(graph))
    except ClassifierError:
        raise
    except (ValueError, IndexError) as error:
        raise ClassifierError(
            f"cannot load the graph: no ONNX file, or a damaged one ({error}). Copy the bundle again."
        ) from error


def _check_model(model: memoryview) -> None:
    for number, value in _fields(model):
        if number == _FUNCTIONS:
            raise _refused("it defines operators of its own")
        if number == _GRAPH and isinstance(value, memoryview):
            _check_graph(value)


def _check_graph(graph: memoryview) -> None:
    for number, value in _fields(graph):
        if number == _NODE and isinstance(value, memoryview):
            _check_node(value)
        elif number == _INITIALIZER and isinstance(value, memoryview):
            _check_tensor(value)


def _check_node(node: memoryview) -> None:
    operator, domain = "", ""
    for number, value in _fields(node):
        if number == _OP_TYPE and isinstance(value, memoryview):
            operator = bytes(value).decode()
        elif number == _DOMAIN and isinstance(value, memoryview):
            domain = bytes(value).decode()
        elif number == _ATTRIBUTE and isinstance(value, memoryview):
            _check_attribute(value)
    if operator not in OPERATORS or domain not in ("", "ai.onnx"):
        raise _refused(f"it uses the operator {operator[:60]!r}{f' of {domain[:60]!r}' if domain else ''}")


def _check_attribute(attribute: memoryview) -> None:
    name, integers = b"", []
    for number, value in _fields(attribute):
        if number in (_SUBGRAPH, _SUBGRAPHS):
            raise _refused("a node holds a graph of its own")
        if number == _NAME and isinstance(value, memoryview):
            name = bytes(value)
        elif number == _INTEGERS:
            integers += [value] if isinstance(value, int) else list(_packed(value))
    if name == b"pads" and any(not 0 <= pad <= MAX_PAD for pad in integers):
        raise _refused(f"a layer adds more than {MAX_PAD} pixels on a side")


def _check_tensor(tensor: memoryview) -> None:
    if any(number == _DATA_LOCATION and value != 0 for number, value in _fields(tensor)):
        raise _refused("it keeps weights in another file")


def _refused(why: str) -> ClassifierError:
    return ClassifierError(
        f"cannot load the graph: it is not one of these networks: {why}. A graph can do harm, so it is not run: "
        "make the bundle again from the weights, with `wsi-her2 models import-keras` or `wsi-her2 train`."
    )


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers of fields with their values: whole numbers, or the bytes of what has a length."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in (_FIXED_32, _FIXED_64):
            length = 4 if kind == _FIXED_32 else 8
        else:
            raise ValueError(f"a field of kind {kind}")
        if place + length > len(message):
            raise ValueError("it is cut off")
        if kind == _BYTES:
            yield number, message[place : place + length]
        place += length


def _packed(values: memoryview) -> Iterator[int]:
    place = 0
    while place < len(values):
        value, place = _varint(values, place)
        yield value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A whole number of up to ten bytes of seven bits, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number does not end")
