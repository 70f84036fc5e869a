"""Five-point alignment: similarity transforms onto face templates, and back.

Coordinates are continuous: the centre of the first pixel is at (0.5, 0.5).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..sockets import Face

# Image-left eye, image-right eye, nose tip, mouth image-left, mouth image-right.
# insightface's arcface_dst for 112 x 112 crops.
ARCFACE_112 = np.array([
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366),
    (41.5493, 92.3655), (70.7299, 92.2041)], np.float32)
# facexlib's FFHQ template for 512 x 512 crops, what the restorers were trained on.
FFHQ_512 = np.array([
    (192.98138, 239.94708), (318.90277, 240.1936), (256.63416, 314.01935),
    (201.26117, 371.41043), (313.08905, 371.15118)], np.float32)

_FIVE = [468, 473, 1, 61, 291]  # irises, nose tip, mouth corners


def five_points(face: Face) -> np.ndarray:
    """Irises, nose tip and mouth corners: (5, 2) float32 pixels, in the templates' order."""
    return face.landmarks[_FIVE, :2].astype(np.float32)


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit rotation, uniform scale and shift from source to target points (N, 2): (2, 3) float64.

    Least squares without reflection (Umeyama 1991).
    """
    source, target = source.astype(np.float64), target.astype(np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    source_off, target_off = source - source_mean, target - target_mean
    # In the plane the best rotation and scale are one complex number.
    numbers = source_off @ (1, 1j), target_off @ (1, 1j)
    turn = (np.conj(numbers[0]) * numbers[1]).sum() / (np.abs(numbers[0]) ** 2).sum()
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Invert a (2, 3) affine matrix."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def warp(pixels: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Draw (H, W, 3) uint8 through a (2, 3) source-to-target matrix: (size, size, 3) uint8.

    Outside the picture is black. Sources much larger than the target are reduced first, so that
    big photos do not alias.
    """
    pixels, (left, top) = _needed(pixels, matrix, size)
    matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ (left, top)])
    factor = int(1 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    picture = Image.fromarray(pixels)
    if factor > 1:
        picture = picture.reduce(factor)
        matrix = matrix * (factor, factor, 1)
    return _draw(picture, matrix, (size, size))


def warp_back(crop: np.ndarray, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """Put a crop back where `warp` with the same matrix took it from.

    Args:
        crop: (S, S, 3) uint8 or (S, S) float32.

    Returns:
        (height, width, 3) uint8 or (height, width) float32, zero outside the crop.
    """
    return _draw(Image.fromarray(np.ascontiguousarray(crop)), inverse(matrix), (width, height))


def align(pixels: np.ndarray, points: np.ndarray, template: np.ndarray, size: int) -> np.ndarray:
    """Warp the face with these five points (5, 2) onto a template drawn for `size` pixels."""
    return warp(pixels, similarity_transform(points, template), size)


def _needed(pixels: np.ndarray, matrix: np.ndarray,
            size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Cut out what a warp reads, with some room, and say where it lay: big photos cost time."""
    back = inverse(matrix)
    corners = np.array([(0, 0), (size, 0), (0, size), (size, size)]) @ back[:, :2].T + back[:, 2]
    room = 8 + 8 * np.sqrt(abs(np.linalg.det(back[:, :2])))
    height, width = pixels.shape[:2]
    left, top = np.clip(corners.min(0) - room, 0, (width - 1, height - 1)).astype(int)
    right, bottom = np.clip(corners.max(0) + room, (left + 1, top + 1), (width, height)).astype(int)
    return np.ascontiguousarray(pixels[top:bottom, left:right]), (int(left), int(top))


def _draw(picture: Image.Image, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample through a source-to-target matrix onto a canvas (width, height)."""
    coefficients = tuple(float(value) for value in inverse(matrix).ravel())
    drawn = picture.transform(size, Image.Transform.AFFINE, coefficients,
                              resample=Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(drawn))
