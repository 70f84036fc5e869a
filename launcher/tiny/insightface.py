"""Makes an InsightFace pack by hand, so that its code path runs where the real packs are not had.

The detector always reports one frontal face in the middle, filling a third of the picture; the
recogniser is the vendored dlib network behind ArcFace's input and output shapes, so that different
people really get different embeddings. Needs the `onnx` package.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

DETECTOR_SIZE = 640
STRIDES = (8, 16, 32)
ANCHORS = 2
DIMENSION = 512

# MediaPipe indices: eye corners of both sides, nose tip, mouth corners.
_EYE_LEFT, _EYE_RIGHT, _NOSE, _MOUTH = (33, 133), (263, 362), 1, (61, 291)
# From dlib's 150 px chip to ArcFace's 112 px crop, fitted on MediaPipe's canonical face.
_CHIP_SCALE, _CHIP_SHIFT = 0.6884, (4.79, 19.11)


def make_pack(folder: Path, models: Path, detector: str, recogniser: str) -> None:
    """Write both files of a pack.

    Args:
        models: the pack's nodes/faces/models.
        detector, recogniser: file names, for example det_10g.onnx and w600k_r50.onnx.
    """
    from safetensors.numpy import load_file

    folder.mkdir(parents=True, exist_ok=True)
    face = load_file(models / "face_canonical.safetensors")["vertices"][:, :2] * (1, -1)
    write_detector(folder / detector, face)
    write_recogniser(folder / recogniser, load_file(models / "face_embedder.safetensors"))


def five_points(face: np.ndarray) -> np.ndarray:
    """Eyes, nose and mouth corners (5, 2) of the canonical face."""
    return np.stack([face[list(_EYE_LEFT)].mean(0), face[list(_EYE_RIGHT)].mean(0), face[_NOSE],
                     face[_MOUTH[0]], face[_MOUTH[1]]])


def write_detector(path: Path, face: np.ndarray) -> None:
    """SCRFD's nine outputs (scores, boxes, points at three strides) with constant content."""
    from onnx import TensorProto, helper, numpy_helper

    middle = (face.min(0) + face.max(0)) / 2
    scale = DETECTOR_SIZE / 3 / np.ptp(face, axis=0).max()
    placed = (face - middle) * scale + DETECTOR_SIZE / 2
    box = np.concatenate([placed.min(0), placed.max(0)])
    points = five_points(placed)

    # ReduceMean * 0 ties the constants to the input, as a graph's outputs must be.
    nodes = [helper.make_node("ReduceMean", ["input.1"], ["mean"], keepdims=0),
             helper.make_node("Mul", ["mean", "zero"], ["nothing"])]
    constants = [numpy_helper.from_array(np.float32(0), "zero")]
    outputs = []
    for kind, width in (("score", 1), ("bbox", 4), ("kps", 10)):
        for stride in STRIDES:
            side = DETECTOR_SIZE // stride
            values = np.zeros((side * side * ANCHORS, width), np.float32)
            if stride == 16:
                cell = side // 2
                anchor = np.array([cell, cell]) * stride
                row = (cell * side + cell) * ANCHORS
                values[row] = {
                    "score": np.array([0.9]),
                    "bbox": np.concatenate([anchor - box[:2], box[2:] - anchor]) / stride,
                    "kps": ((points - anchor) / stride).ravel()}[kind]
            name = f"{kind}_{stride}"
            constants.append(numpy_helper.from_array(values, f"{name}_constant"))
            nodes.append(helper.make_node("Add", [f"{name}_constant", "nothing"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape))
    shape = [1, 3, DETECTOR_SIZE, DETECTOR_SIZE]
    save(path, nodes, [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, shape)],
          outputs, constants)


def write_recogniser(path: Path, stored: dict[str, np.ndarray]) -> None:
    """Trace the dlib ResNet behind a resampling from ArcFace's crop to dlib's chip."""
    from onnx import TensorProto, helper

    graph = Graph(stored)
    # insightface feeds (x - 127.5) / 127.5; the network wants 0..255 less its mean, over 255.
    image = graph.add("Mul", ["input.1", graph.constant(np.float32(127.5))])
    mean = np.array([122.782, 117.001, 104.298], np.float32).reshape(1, 3, 1, 1)
    image = graph.add("Add", [image, graph.constant(127.5 - mean)])
    image = graph.add("Div", [image, graph.constant(np.float32(255))])
    chip = graph.add("GridSample", [image, graph.constant(chip_grid())], mode="bilinear")
    features = graph.network(chip)
    flat = graph.add("Flatten", [graph.add("GlobalAveragePool", [features])])
    # Orthonormal columns stretch 128 numbers to ArcFace's 512 and keep every angle.
    spread = np.linalg.qr(np.random.default_rng(0).normal(size=(DIMENSION, 128)))[0].T
    head = (graph.weights["fc"].T @ spread).astype(np.float32)
    graph.nodes.append(helper.make_node("MatMul", [flat, graph.constant(head)], ["683"]))
    save(path, graph.nodes,
          [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["None", 3, 112, 112])],
          [helper.make_tensor_value_info("683", TensorProto.FLOAT, ["None", DIMENSION])],
          graph.constants)


class Graph:
    """Collects nodes and constants of an ONNX graph."""

    def __init__(self, stored: dict[str, np.ndarray]) -> None:
        self.nodes: list = []
        self.constants: list = []
        self.weights = {}
        for name, value in stored.items():
            span = stored.get(f"{name}.range")
            self.weights[name] = value if span is None else value * span[0] + span[1]

    def constant(self, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, inputs: list[str], **attributes: object) -> str:
        from onnx import helper

        name = f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def network(self, image: str) -> str:
        """The convolutions of the dlib ResNet, from a (1, 3, 150, 150) chip."""
        x = self.convolve(image, "conv32_down", stride=2, padding=0)
        x = self.add("MaxPool", [self.add("Relu", [x])], kernel_shape=[3, 3], strides=[2, 2])
        size, channels = 35, 32
        for width, repeats in ((32, (1, 2, 3)), (64, (0, 1, 2, 3)), (128, (0, 1, 2)),
                               (256, (0, 1, 2)), (256, (-1,))):
            for number in repeats:
                block = {0: f"conv{width}_down", -1: f"conv{width}_down_out"}.get(
                    number, f"conv{width}_{number}")
                x, size, channels = self.residual(x, block, size, channels, width, number < 1)
        return x

    def residual(self, x: str, block: str, size: int, channels: int, width: int,
                 down: bool) -> tuple[str, int, int]:
        stride, padding = (2, 0) if down else (1, 1)
        inner = self.add("Relu", [self.convolve(x, f"{block}.conv1", stride, padding)])
        inner = self.convolve(inner, f"{block}.conv2")
        outer, halved = x, size
        if down:
            halved, shrunk = size // 2, (size - 3) // 2 + 1
            outer = self.add("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])
            inner = self.pad(inner, [0, 0, halved - shrunk, halved - shrunk])
            outer = self.pad(outer, [0, width - channels, 0, 0])
        return self.add("Relu", [self.add("Add", [inner, outer])]), halved, width

    def pad(self, x: str, ends: list[int]) -> str:
        return self.add("Pad", [x, self.constant(np.array([0, 0, 0, 0, *ends], np.int64))])

    def convolve(self, x: str, name: str, stride: int = 1, padding: int = 1) -> str:
        gain = self.weights[f"{name}.gain"]
        weight = self.weights[f"{name}.weight"] * gain[:, None, None, None]
        bias = self.weights[f"{name}.bias"] * gain + self.weights[f"{name}.shift"]
        constants = [self.constant(value.astype(np.float32)) for value in (weight, bias)]
        return self.add("Conv", [x, *constants], strides=[stride] * 2, pads=[padding] * 4)


def chip_grid() -> np.ndarray:
    """Where each pixel of dlib's chip lies in ArcFace's crop, as GridSample wants it."""
    centres = (np.arange(150) + 0.5) * _CHIP_SCALE
    x, y = np.meshgrid(centres + _CHIP_SHIFT[0], centres + _CHIP_SHIFT[1])
    return (np.stack([x, y], axis=-1) / 56 - 1).astype(np.float32)[None]


def save(path: Path, nodes: list, inputs: list, outputs: list, constants: list) -> None:
    import onnx
    from onnx import helper

    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
