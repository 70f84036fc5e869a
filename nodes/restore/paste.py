"""Cut an aligned face out of a picture and put it back, in floating point.

Not `faces.align.warp`: that works on 8-bit pictures, and rounding here would change every face a
little even where nothing was restored. Coordinates are continuous, as there: the centre of the
first pixel is at (0.5, 0.5).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from ..faces.align import inverse

FEATHER = 24  # chip pixels over which the chip's own border fades out


def sample(picture: torch.Tensor, to_source: np.ndarray, height: int, width: int,
           padding: str = "border") -> torch.Tensor:
    """Resample a picture through an affine map, averaging where it shrinks.

    Args:
        picture: (H, W, C) float.
        to_source: (2, 3), maps (x, y, 1) of the result to (x, y) of `picture`; pixels.
        height: of the result.
        width: of the result.
        padding: `border` repeats the edge, `zeros` gives 0 outside.

    Returns:
        (height, width, C), cubic, limited to the picture's own range of values.
    """
    matrix = torch.as_tensor(np.asarray(to_source), dtype=torch.float64)
    shrink = math.sqrt(abs(float(torch.linalg.det(matrix[:, :2]))))
    fine = max(1, math.ceil(shrink - 1e-6))  # samples a side for each pixel of the result
    columns = _fine_steps(width, fine)
    rows = _fine_steps(height, fine)
    x = matrix[0, 0] * columns[None] + matrix[0, 1] * rows[:, None] + matrix[0, 2]
    y = matrix[1, 0] * columns[None] + matrix[1, 1] * rows[:, None] + matrix[1, 2]
    source_height, source_width = picture.shape[:2]
    grid = torch.stack((2 * x / source_width - 1, 2 * y / source_height - 1), -1)[None]
    found = F.grid_sample(picture.movedim(-1, 0)[None].float(), grid.to(picture.device).float(),
                          mode="bicubic", padding_mode=padding, align_corners=False)
    if fine > 1:
        found = F.avg_pool2d(found, fine)
    return found[0].movedim(0, -1).clamp(picture.min(), picture.max())


def _fine_steps(count: int, fine: int) -> torch.Tensor:
    return (torch.arange(count * fine, dtype=torch.float64) + 0.5) / fine


def cut(picture: torch.Tensor, to_chip: np.ndarray, size: int) -> torch.Tensor:
    """Cut the aligned face (size, size, 3) out of a picture (H, W, 3).

    Args:
        to_chip: (2, 3), maps picture pixels to chip pixels.
    """
    return sample(picture, inverse(to_chip), size, size)


def paste(picture: torch.Tensor, chip: torch.Tensor, to_chip: np.ndarray, mask: torch.Tensor,
          strength: float) -> torch.Tensor:
    """Blend a chip into a picture where the mask says so; nothing else changes by a bit.

    Args:
        picture: (H, W, 3) float in [0, 1].
        chip: (size, size, 3) float in [0, 1].
        to_chip: (2, 3), maps picture pixels to chip pixels.
        mask: (H, W) in [0, 1].
        strength: 0 leaves the picture, 1 shows the chip alone.

    Returns:
        (H, W, 3), a new tensor.
    """
    result = picture.clone()
    rows, columns = torch.nonzero(mask > 0, as_tuple=True)
    if not len(rows):
        return result
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    matrix = np.asarray(to_chip, np.float64).copy()
    matrix[:, 2] += matrix[:, :2] @ (left, top)
    layers = torch.cat((chip, _window(chip)), -1)
    warped = sample(layers, matrix, bottom - top, right - left, padding="zeros")
    box = result[top:bottom, left:right]
    weight = mask[top:bottom, left:right, None] * warped[..., 3:].clamp(0, 1) * strength
    blended = box + weight * (warped[..., :3] - box)
    result[top:bottom, left:right] = torch.where(weight > 0, blended, box)
    return result


def _window(chip: torch.Tensor) -> torch.Tensor:
    """1 inside the chip, falling to 0 at its border: a face that reaches beyond leaves no seam."""
    size = chip.shape[0]
    steps = torch.arange(size, dtype=torch.float32, device=chip.device)
    edge = torch.minimum(steps, size - 1 - steps).div(FEATHER).clamp(0, 1)
    return torch.minimum(edge[:, None], edge[None])[..., None]
