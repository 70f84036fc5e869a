"""Converts the second face recogniser from TensorFlow Lite to safetensors, value for value.

The file was converted by its publishers from the released checkpoint of sirius-ai/MobileFaceNet_TF:
all 33 tensors of PReLU slopes, which folding batch norms into convolutions leaves alone, have the
checksums (CRC-32C) that the checkpoint's index states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_CONVOLUTION, _DEPTHWISE, _MULTIPLY = 3, 4, 18  # BuiltinOperator of TensorFlow Lite's schema
_PARTS = ("expand", "depthwise", "project")
_BLOCKS = 15


def layer_names() -> list[str]:
    """The network's convolutions in their order."""
    blocks = [f"blocks.{number}.{part}" for number in range(_BLOCKS) for part in _PARTS]
    return ["stem", "stem_depthwise", "entry", *blocks, "head", "gather", "mix", "embedding"]


def tensors(model: bytes) -> dict[str, np.ndarray]:
    """Weights, biases and slopes by the names that `nodes/faces/recognise/mobilefacenet.py` reads.

    PReLU was written as `relu(x) + (x - |x|) * half`, so that a slope is twice the constant.
    """
    import numpy as np
    from mediapipe.tasks.metadata import schema_py_generated as tflite

    graph = tflite.Model.GetRootAsModel(bytearray(model), 0)
    names = iter(layer_names())
    found: dict[str, np.ndarray] = {}
    name = ""
    for code, inputs in _operators(graph):
        if code in (_CONVOLUTION, _DEPTHWISE):
            name = next(names)
            weight = _constant(graph, inputs[1])
            order = (0, 3, 1, 2) if code == _CONVOLUTION else (3, 0, 1, 2)
            found[f"{name}.weight"] = np.ascontiguousarray(weight.transpose(order))
            found[f"{name}.bias"] = _constant(graph, inputs[2])
        if code == _MULTIPLY:
            found[f"{name}.slope"] = 2 * _constant(graph, inputs[0])
    left = list(names)
    assert not left, left
    return found


def _operators(graph: Any) -> list[tuple[int, list[int]]]:
    """The code and the tensors of each operator, in the order in which they run."""
    part = graph.Subgraphs(0)
    found = []
    for place in range(part.OperatorsLength()):
        operator = part.Operators(place)
        code = graph.OperatorCodes(operator.OpcodeIndex())
        found.append((max(code.BuiltinCode(), code.DeprecatedBuiltinCode()),
                      operator.InputsAsNumpy().tolist()))
    return found


def _constant(graph: Any, tensor: int) -> np.ndarray:
    import numpy as np

    described = graph.Subgraphs(0).Tensors(tensor)
    data = graph.Buffers(described.Buffer()).DataAsNumpy()
    return np.frombuffer(data.tobytes(), "<f4").reshape(described.ShapeAsNumpy())
