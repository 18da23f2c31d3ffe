"""A graph of ONNX under construction: nodes and constants as plain values, so that no package is needed.

Values have names that are as short as possible: there are thousands of them, and the file is to be small.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np

# Weights of fewer numbers are not worth the node that converts them.
_LEAST_HALF = 32
# WebGPU binds ten buffers; its runtime computes a node of more inputs or outputs with an error.
_MOST_INPUTS = 8
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# ONNX's number of float32
FLOAT = 1


@dataclass(frozen=True)
class Node:
    """An operator, with the names of its inputs and outputs."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


class Graph:
    """Nodes in the order of their computation, and constants.

    Args:
        half: Store weights in 16 bits, each with a node that converts it.
        outside: The graph that contains this one as the body of a loop: it has the constants, and gives the names.
    Attributes:
        nodes: The nodes.
        constants: Constants by name.
        inputs, outputs: Names of the inputs and outputs of a body.
    """

    def __init__(self, *, half: bool = False, outside: "Graph | None" = None) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: tuple[str, ...] = ()
        self.outputs: tuple[str, ...] = ()
        self._half = half
        self._outside = outside
        self._numbers = count()
        self._known: dict[tuple, str] = {}

    def constant(self, value: Any, dtype: Any = np.float32, *, half: bool = False) -> str:
        """The name of a constant; equal ones are stored once.

        Args:
            value: A number, or numbers of any shape.
            dtype: Their type.
            half: Store them in 16 bits, with a node that converts them.
        """
        if self._outside is not None:
            return self._outside.constant(value, dtype, half=half)
        array = np.asarray(value, dtype, order="C")
        key = (array.dtype.str, array.shape, array.tobytes(), half)
        if key not in self._known:
            name = self._new_name()
            self.constants[name] = array.astype(np.float16) if half else array
            self._known[key] = self.add("Cast", name, to=FLOAT) if half else name
        return self._known[key]

    def weight(self, value: np.ndarray) -> str:
        """The name of numbers of the network, which may be stored in 16 bits."""
        return self.constant(value, half=self._half and value.size >= _LEAST_HALF)

    def integers(self, *values: int) -> str:
        """The name of a constant int64 (n,), such as a shape or axes."""
        return self.constant(values, np.int64)

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output, and return its name; the input "" is left out."""
        return self.add_several(kind, *inputs, num_outputs=1, **attributes)[0]

    def add_several(self, kind: str, *inputs: str, num_outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node of several outputs, and return their names."""
        outputs = tuple(self._new_name() for _ in range(num_outputs))
        self.nodes.append(Node(kind, inputs, outputs, attributes))
        return outputs

    def range(self, start: int, stop: int, step: int) -> str:
        """Whole numbers from `start` to before `stop`."""
        return self.add("Range", *(self.constant(number, np.int64) for number in (start, stop, step)))

    def reshape(self, x: str, *shape: int) -> str:
        """Another shape: 0 keeps the length of an axis, and one -1 is computed."""
        return self.add("Reshape", x, self.integers(*shape))

    def transpose(self, x: str, *axes: int) -> str:
        """The axes in another order."""
        return self.add("Transpose", x, perm=axes)

    def split(self, x: str, *lengths: int, axis: int) -> tuple[str, ...]:
        """Parts of an axis."""
        return self.add_several("Split", x, self.integers(*lengths), num_outputs=len(lengths), axis=axis)

    def pick(self, x: str, index: int, *, axis: int = 0) -> str:
        """One row of an axis, which keeps the length 1."""
        # the default takes no bytes
        return self.add("Gather", x, self.integers(index), **({"axis": axis} if axis else {}))

    def rows(self, x: str, start: int, stop: int, *, axis: int = 0) -> str:
        """Neighboring rows of an axis."""
        return self.add("Slice", x, self.integers(start), self.integers(stop), self.integers(axis))

    def pad_start(self, x: str, number: int, *, axis: int, num_axes: int) -> str:
        """Rows of zeros before an axis."""
        return self.add("Pad", x, self.integers(*(number if each == axis else 0 for each in range(2 * num_axes))))

    def concat(self, parts: Sequence[str], *, axis: int) -> str:
        """Any number of parts as one, by nodes of few inputs."""
        while len(parts) > 1:
            groups = [parts[at : at + _MOST_INPUTS] for at in range(0, len(parts), _MOST_INPUTS)]
            parts = [self.add("Concat", *each, axis=axis) if len(each) > 1 else each[0] for each in groups]
        return parts[0]

    def body(self, num_inputs: int) -> "Graph":
        """A graph for the body of a loop."""
        body = Graph(half=self._half, outside=self)
        body.inputs = tuple(body._new_name() for _ in range(num_inputs))
        return body

    def name_last(self, name: str) -> None:
        """Give the output of the last node a name of its own."""
        self.nodes[-1] = replace(self.nodes[-1], outputs=(name,))

    def _new_name(self) -> str:
        if self._outside is not None:
            return self._outside._new_name()
        number, name = next(self._numbers), ""
        while number or not name:
            number, digit = divmod(number, len(_DIGITS))
            name = _DIGITS[digit] + name
        return name
