"""Makes OpenCV's YuNet and SFace by hand, so that their code path runs without the real files.

The detector always reports one frontal face in the middle, filling a third of the picture; the
recogniser is the vendored dlib network behind SFace's input, so that different people really get
different embeddings. Needs the `onnx` package.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .insightface import Graph, chip_grid, five_points, save

SIDE = 640
STRIDES = (8, 16, 32)
DIMENSION = 128


def make_files(folder: Path, models: Path, detector: str, recogniser: str) -> None:
    """Write both files.

    Args:
        models: the pack's nodes/faces/models.
        detector, recogniser: file names, for example face_detection_yunet_2023mar.onnx.
    """
    from safetensors.numpy import load_file

    folder.mkdir(parents=True, exist_ok=True)
    face = load_file(models / "face_canonical.safetensors")["vertices"][:, :2] * (1, -1)
    write_detector(folder / detector, face)
    write_recogniser(folder / recogniser, load_file(models / "face_embedder.safetensors"))


def write_detector(path: Path, face: np.ndarray) -> None:
    """YuNet's twelve outputs (class, object, box, points at three strides), constant.

    FaceDetectorYN reads a cell (c, r) as: score sqrt(class * object); centre ((c, r) + box[:2]) *
    stride; size exp(box[2:]) * stride; points ((c, r) + points) * stride.
    """
    from onnx import TensorProto, helper, numpy_helper

    scale = SIDE / 3 / np.ptp(face, axis=0).max()
    placed = (face - (face.min(0) + face.max(0)) / 2) * scale + SIDE / 2
    size, points = np.ptp(placed, axis=0), five_points(placed)
    # ReduceMean * 0 ties the constants to the input, as a graph's outputs must be.
    nodes = [helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
             helper.make_node("Mul", ["mean", "zero"], ["nothing"])]
    constants = [numpy_helper.from_array(np.float32(0), "zero")]
    outputs = []
    for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in STRIDES:
            side = SIDE // stride
            values = np.zeros((1, side * side, width), np.float32)
            if stride == 16:
                cell = side // 2
                values[0, cell * side + cell] = {
                    "cls": np.array([0.9]), "obj": np.array([0.9]),
                    "bbox": np.array([0, 0, *np.log(size / stride)]),
                    "kps": (points / stride - cell).ravel()}[kind]
            name = f"{kind}_{stride}"
            constants.append(numpy_helper.from_array(values, f"{name}_constant"))
            nodes.append(helper.make_node("Add", [f"{name}_constant", "nothing"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape))
    shape = [1, 3, SIDE, SIDE]
    save(path, nodes, [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
         outputs, constants)


def write_recogniser(path: Path, stored: dict[str, np.ndarray]) -> None:
    """Trace the dlib ResNet behind a resampling from SFace's crop, RGB in 0..255, to dlib's."""
    from onnx import TensorProto, helper

    graph = Graph(stored)
    mean = np.array([122.782, 117.001, 104.298], np.float32).reshape(1, 3, 1, 1)
    image = graph.add("Sub", ["data", graph.constant(mean)])
    image = graph.add("Div", [image, graph.constant(np.float32(255))])
    chip = graph.add("GridSample", [image, graph.constant(chip_grid())], mode="bilinear")
    flat = graph.add("Flatten", [graph.add("GlobalAveragePool", [graph.network(chip)])])
    head = graph.constant(graph.weights["fc"].T.astype(np.float32))
    graph.nodes.append(helper.make_node("MatMul", [flat, head], ["fc1"]))
    save(path, graph.nodes,
         [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 112, 112])],
         [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, DIMENSION])],
         graph.constants)
