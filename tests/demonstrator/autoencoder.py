"""Trains the demonstrator's autoencoder: TAESD's layout, 16 channels at an eighth.

    python tests/demonstrator/autoencoder.py WORK --minutes M [--start CHECKPOINT]

Goes on from WORK/autoencoder.pt where there is one, else from a packed checkpoint's weights. Then
the encoder stays as it is, so that the checkpoint's U-Net still knows the latents.

Loss: L1 and gradients of the picture, both weighted towards the face, and the distance of dlib's
embeddings; MobileFaceNet stays a judge that never took part. TAESD's layout:
https://github.com/madebyollin/taesd (MIT).
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import crops
import judge
import networks
import numpy as np
import states
import torch
from pack_import import pack, prepare_imports
from PIL import Image
from prepare import SIDE

CHANNELS = 16
BATCH = 8
_RATE, _EMA = 1e-3, 0.998
_NOISE = 0.1  # added to latents, whose deviation is held near 1: near ones look alike
_FACE = 3.0  # weight of the face's pixels; others 1
IDENTITY = 0.4  # weight of dlib's squared distance
_SPREAD = 0.05  # weight of keeping each channel at deviation 1 and mean 0
# Patches train: most anywhere, every third round the face, where the recogniser looks. Steps are
# what it needs most, and a whole picture costs three to four of them.
_PATCH, _FACE_PATCH, _FACE_EVERY = 64, 88, 3  # pixels, pixels, steps


def build() -> torch.nn.Module:
    """An untrained autoencoder of the host's own class."""
    prepare_imports()
    import comfy.taesd.taesd

    torch.manual_seed(0)
    network = comfy.taesd.taesd.TAESD(latent_channels=CHANNELS)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    for name, value in network.named_parameters():
        if name.endswith("conv.4.weight"):
            value.data.mul_(0.3)  # residual branches start small
    network.vae_scale.requires_grad_(False)
    network.vae_shift.requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


def face_weight(points: list[np.ndarray], side: int) -> torch.Tensor:
    """(B, 1, side, side): a soft disc on the face that weighs more."""
    rows = np.arange(side) + 0.5
    weights = []
    for marks in points:
        middle = (marks[:468].min(0) + marks[:468].max(0)) / 2
        half = (marks[:468].max(0) - marks[:468].min(0)) / 2
        away = (((rows[None] - middle[0]) / half[0]) ** 2
                + ((rows[:, None] - middle[1]) / half[1]) ** 2)
        weights.append(1 + (_FACE - 1) * np.clip(1.6 - away, 0, 0.6) / 0.6)
    return torch.from_numpy(np.stack(weights)).float()[:, None]


def corners(points: list[np.ndarray], side: int, face: bool,
            random: np.random.Generator) -> np.ndarray:
    """Where patches begin, x and y (B, 2): round faces, or anywhere and in the middle often."""
    most = SIDE - side
    if face:
        middles = np.stack([(marks[:468].min(0) + marks[:468].max(0)) / 2 for marks in points])
        return np.clip(middles - side / 2, 0, most).astype(int)
    return np.clip(random.normal(most / 2, most / 3, (len(points), 2)), 0, most).astype(int)


def patches(rows: torch.Tensor, corners: np.ndarray, side: int) -> torch.Tensor:
    cut = torch.stack([row[:, y:y + side, x:x + side]
                       for row, (x, y) in zip(rows, corners, strict=True)])
    return cut.contiguous(memory_format=torch.channels_last)


def _edges(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return pictures.diff(dim=-1), pictures.diff(dim=-2)


def picture_loss(drawn: torch.Tensor, true: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """L1 and L1 of gradients, each weighted by (B, 1, H, W)."""
    loss = (weight * (drawn - true).abs()).mean() / weight.mean()
    for ours, theirs in zip(_edges(drawn), _edges(true), strict=True):
        part = weight[..., :ours.shape[-2], :ours.shape[-1]]
        loss = loss + (part * (ours - theirs).abs()).mean() / part.mean()
    return loss


def unscaled(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A packed autoencoder's weights as it was trained: without the latents' scale and shift."""
    return {**weights, "vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)}


def finished(work: Path, start: Path | None) -> torch.nn.Module:
    """The autoencoder as far as it is trained: WORK's own, else the packed checkpoint's."""
    network = build()
    for name in ("sharpened.pt", "autoencoder.pt"):
        if (work / name).is_file():
            network.load_state_dict(torch.load(work / name, weights_only=True)["average"])
            return network
    if start is None:
        raise SystemExit(f"{work} holds no autoencoder; train one or name a checkpoint by --start.")
    network.load_state_dict(unscaled(networks.unpack(start)["vae"]))
    return network


class Training(states.State):
    """Weights, their average and the optimiser."""

    def __init__(self, file: Path, start: Path | None = None) -> None:
        self.network, self.average = build(), build()
        if start is not None:
            for network in (self.network, self.average):
                network.load_state_dict(unscaled(networks.unpack(start)["vae"]))
            self.network.taesd_encoder.requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            [value for value in self.network.parameters() if value.requires_grad],
            lr=_RATE, betas=(0.9, 0.99), weight_decay=1e-3)
        super().__init__(file, {"network": self.network, "average": self.average,
                                "optimizer": self.optimizer})


def train(work: Path, minutes: float, start: Path | None = None) -> None:
    sets = crops.read(work)
    training = Training(work / "autoencoder.pt", start)
    network = training.network
    dlib = pack("faces.recognise.dlib_resnet").differentiable_network(torch.device("cpu"))
    random = np.random.default_rng(training.step + 1)
    torch.manual_seed(training.step + 1)
    looked, sums, distances = time.time(), [], []
    started = time.time() - training.seconds  # as if all of it had been one run
    while (spent := time.time() - started) < minutes * 60:
        share = spent / (minutes * 60)
        for group in training.optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (training.step + 1) / 100) * (
                0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
        drawn = [crops.draw(sets[:2], random) for _ in range(BATCH)]
        face = training.step % _FACE_EVERY == 0
        side = _FACE_PATCH if face else _PATCH
        points = [marks for _, marks, *_ in drawn]
        begins = corners(points, side, face, random)
        true, weight = (patches(rows, begins, side) for rows in (
            crops.tensor([crop for crop, *_ in drawn]), face_weight(points, SIDE)))
        with torch.autocast("cpu", torch.bfloat16):
            latents = network.taesd_encoder(true).float()
            made = network.taesd_decoder(
                (latents + _NOISE * torch.randn_like(latents)).to(torch.bfloat16)).float()
        loss = picture_loss(made, true, weight)
        spread = ((latents.std((0, 2, 3)) - 1) ** 2 + latents.mean((0, 2, 3)) ** 2).mean()
        loss = loss + _SPREAD * spread
        if face:
            grids = judge.chip_grids(
                [marks - corner for marks, corner in zip(points, begins, strict=True)],
                [turned for *_, turned in drawn], side)
            identity = identity_distance(dlib, true, made, grids)
            loss = loss + IDENTITY * identity
            distances.append(float(identity.detach()))
        training.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        training.optimizer.step()
        states.follow([training.average], [training.network], training.step, _EMA)
        training.step += 1
        sums.append([float(value.detach()) for value in (loss, (made - true).abs().mean())])
        if time.time() - looked > 120:
            training.seconds = time.time() - started
            training.store()
            means = np.mean(sums, axis=0)
            print(f"step {training.step}, {training.seconds / 60:.1f} min: loss {means[0]:.4f} "
                  f"l1 {means[1]:.4f} dlib {np.mean(distances):.4f} | "
                  f"{look(training.average, sets[2], work)}", flush=True)
            looked, sums, distances = time.time(), [], []
    training.seconds = time.time() - started
    training.store()
    print("end:", look(training.average, sets[2], work), flush=True)


def identity_distance(dlib: torch.nn.Module, true: torch.Tensor, made: torch.Tensor,
                      grids: torch.Tensor) -> torch.Tensor:
    """The squared distance of dlib's embeddings, averaged."""
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            wanted = dlib(judge.cut(true, grids)).float()
        seen = dlib(judge.cut(made.contiguous(), grids)).float()
    return ((seen - wanted) ** 2).sum(1).mean()


def look(network: torch.nn.Module, held: crops.Pictures, work: Path) -> str:
    """What the second judge says of the held-out people, and a sheet of them."""
    rows = [crops.plain(held, row) for row in range(len(held.canvases))]
    true = crops.tensor([crop for crop, _ in rows])
    with torch.no_grad():
        latents = network.taesd_encoder(true)
        made = network.taesd_decoder(latents).clamp(0, 1)
    grids = judge.face_grids([marks for _, marks in rows])
    alike = (judge.second_judge(true, grids) * judge.second_judge(made, grids)).sum(1)
    sheet = torch.cat([torch.cat(list(part[:12]), dim=-1) for part in (true, made)], dim=-2)
    Image.fromarray((sheet * 255).byte().permute(1, 2, 0).numpy()).save(work / "autoencoder.png")
    return (f"held out: l1 {float((made - true).abs().mean()):.4f}, second judge median "
            f"{float(alike.median()):.3f}, lowest {float(alike.min()):.3f}; latents "
            f"{float(latents.mean()):.2f} +- {float(latents.std()):.2f}")


if __name__ == "__main__":
    states.run(train, __doc__)
