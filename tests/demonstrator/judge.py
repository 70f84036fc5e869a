"""What recognisers see in crops whose landmarks are known, for losses and for measuring."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pack_import import pack
from prepare import SIDE

_MIRRORED = [2, 3, 0, 1, 4]


def chip_grids(points: list[np.ndarray], mirrored: list[bool], side: int = SIDE) -> torch.Tensor:
    """Where dlib's chips take their pixels: (B, 150, 150, 2) for `grid_sample`.

    Args:
        points: landmarks (478, 2) in pixels of the crop.
        mirrored: whose eyes changed sides.
        side: of the crop, pixels.
    """
    dlib = pack("faces.recognise.dlib_resnet")
    rows = []
    for marks, turned in zip(points, mirrored, strict=True):
        five = dlib.alignment_points(marks)
        rows.append(_theta(dlib.chip_matrix(five[_MIRRORED] if turned else five), dlib.CHIP,
                           side))
    return F.affine_grid(torch.stack(rows), [len(rows), 3, dlib.CHIP, dlib.CHIP],
                         align_corners=False)


def face_grids(points: list[np.ndarray]) -> torch.Tensor:
    """The same for MobileFaceNet: (B, 112, 112, 2)."""
    align = pack("faces.align")
    rows = [_theta(align.similarity_transform(marks[[468, 473, 1, 61, 291]], align.ARCFACE_112),
                   112, SIDE) for marks in points]
    return F.affine_grid(torch.stack(rows), [len(rows), 3, 112, 112], align_corners=False)


def _theta(matrix: np.ndarray, chip: int, side: int) -> torch.Tensor:
    """A (2, 3) transform from crop to chip pixels as `affine_grid` wants it, from chip to crop."""
    back = pack("faces.align").inverse(matrix)
    half, whole = chip / 2, side / 2
    linear = back[:, :2] * half / whole
    moved = (back[:, :2].sum(1) * half + back[:, 2]) / whole - 1
    return torch.from_numpy(np.column_stack([linear, moved])).float()


def cut(pictures: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """Aligned faces in [0, 255] from pictures (B, 3, side, side) in [0, 1]."""
    return F.grid_sample(pictures, grids, align_corners=False, padding_mode="border") * 255


def second_judge(pictures: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """Unit embeddings (B, 192) of MobileFaceNet."""
    judge = pack("faces.recognise.mobilefacenet")
    network = judge.differentiable_network(torch.device("cpu"))
    with torch.no_grad():
        return F.normalize(judge.both_sides(network, cut(pictures, grids)), dim=1)
