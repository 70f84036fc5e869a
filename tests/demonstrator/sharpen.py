"""Sharpens the demonstrator's decoder, for portraits and for what the U-Net draws.

    python tests/demonstrator/sharpen.py WORK --minutes M [--start CHECKPOINT]

Needs WORK/denoiser.pt and WORK/latents.pt; goes on from WORK/sharpened.pt, else from
WORK/autoencoder.pt, else from the packed checkpoint. The encoder stays as it is, so that the U-Net
still knows the latents. L1 is least where every doubtful edge is soft; so beside it stands how much
detail lies in each block, for decoded portraits block by block, and for drawn latents, whose finest
part is missing, as the distribution over blocks.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import autoencoder
import captions
import crops
import denoiser
import judge
import measure
import networks
import numpy as np
import states
import torch
from pack_import import pack
from PIL import Image
from prepare import SIDE
from torch.nn import functional

BATCH = 6  # of portraits, and as many drawn ones
_RATE, _EMA = 3e-4, 0.995
_POOL, _DRAWN_AT_ONCE, _CFG = 384, 16, 2.5
_PATCH = 88  # pixels, a multiple of 8
_FACES = 0.7  # share of patches round the face, where dlib looks too
_CELL = 8  # pixels of a latent cell
_TEXTURE = 0.06  # weight of the detail's distance
_LOOK = 180  # seconds


def draw_pool(work: Path, start: Path | None) -> torch.Tensor:
    """Latents (N, 16, 16, 16) that the U-Net draws from captions, at the decoder's scale."""
    file = work / "pool.pt"
    if file.is_file():
        return torch.load(file, weights_only=True)
    training = denoiser.Training(work / "denoiser.pt", start)
    networks.use_plain_attention()
    stored = torch.load(work / "latents.pt", weights_only=True)
    random, rows = np.random.default_rng(11), []
    for seed in range(_POOL // _DRAWN_AT_ONCE):
        words = [captions.caption(stored["labels"][int(random.integers(len(stored["labels"])))],
                                  random) for _ in range(_DRAWN_AT_ONCE)]
        tokens = torch.tensor([captions.tokens(text, training.tokenizer, None)
                               for text in [*words, ""]])
        with torch.no_grad():
            context = networks.encode(training.text_average, tokens)
        rows.append(denoiser.sample(training.unet_average, context[:-1], context[-1:],
                                    1000 + seed, cfg=_CFG))
    pool = torch.cat(rows) * stored["scale"] + stored["shift"]
    states.write(pool, file)
    return pool


class Training(states.State):
    """The decoder, its average and the optimiser."""

    def __init__(self, work: Path, start: Path | None) -> None:
        self.network = autoencoder.finished(work, start)
        self.average = autoencoder.finished(work, start)
        self.network.taesd_encoder.requires_grad_(False)
        self.learned = list(self.network.taesd_decoder.parameters())
        self.optimizer = torch.optim.AdamW(self.learned, lr=_RATE, betas=(0.9, 0.99))
        super().__init__(work / "sharpened.pt", {
            "network": self.network, "average": self.average, "optimizer": self.optimizer})


def train(work: Path, minutes: float, start: Path | None = None) -> None:
    pool = draw_pool(work, start)
    sets, training = crops.read(work), Training(work, start)
    dlib = pack("faces.recognise.dlib_resnet").differentiable_network(torch.device("cpu"))
    random = np.random.default_rng(training.step + 1)
    torch.manual_seed(training.step + 1)
    figures, looked = [], time.time()
    started = time.time() - training.seconds
    while (spent := time.time() - started) < minutes * 60:
        rate = min(1.0, (training.step + 1) / 100, 0.02 + 2 * (1 - spent / (minutes * 60)))
        for group in training.optimizer.param_groups:
            group["lr"] = _RATE * rate
        figures.append(_step(training, sets, pool, dlib, random))
        if time.time() - looked > _LOOK:
            training.seconds = time.time() - started
            training.store()
            print(f"step {training.step}, {training.seconds / 60:.1f} min: picture, texture "
                  f"{np.mean(figures, axis=0).round(4)} | "
                  f"{look(training.average, pool, sets[2], work)}", flush=True)
            figures, looked = [], time.time()
    training.seconds = time.time() - started
    training.store()
    print("end:", look(training.average, pool, sets[2], work), flush=True)


def _step(training: Training, sets: tuple, pool: torch.Tensor, dlib: torch.nn.Module,
          random: np.random.Generator) -> list[float]:
    """One step: the picture's loss and the texture's."""
    seen = [crops.draw(sets[:2], random, steady=True) for _ in range(BATCH)]
    points = [marks for _, marks, *_ in seen]
    face = bool(random.random() < _FACES)
    corners = autoencoder.corners(points, _PATCH, face, random)
    true, weight = (autoencoder.patches(rows, corners, _PATCH) for rows in (
        crops.tensor([crop for crop, *_ in seen]), autoencoder.face_weight(points, SIDE)))
    drawn = _cells(pool[random.integers(len(pool), size=BATCH)], random)
    network = training.network
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            latents = network.taesd_encoder(true).float()
        made = network.taesd_decoder(torch.cat([latents, drawn]).to(torch.bfloat16)).float()
    own = made[:BATCH]
    picture, texture = autoencoder.picture_loss(own, true, weight), _texture_loss(made, true)
    loss = picture + _TEXTURE * texture
    if face:
        grids = judge.chip_grids([marks - corner for marks, corner in
                                  zip(points, corners, strict=True)],
                                 [mirrored for *_, mirrored in seen], _PATCH)
        loss = loss + autoencoder.IDENTITY * autoencoder.identity_distance(dlib, true, own, grids)
    training.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(training.learned, 1.0)
    training.optimizer.step()
    states.follow([training.average], [network], training.step, _EMA)
    training.step += 1
    return [float(picture.detach()), float(texture.detach())]


def _texture(pictures: torch.Tensor) -> torch.Tensor:
    """How much detail lies where: the logarithm of the Laplacian's deviation in blocks of 8 pixels.

    A little smoothed before, because a chequerboard would be the cheapest detail.
    """
    grey = pictures.mean(1, keepdim=True)
    row = torch.tensor([0.25, 0.5, 0.25])
    smooth = functional.conv2d(grey, (row[:, None] * row)[None, None])
    kernel = torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]])
    edges = functional.conv2d(smooth, kernel)
    return (functional.avg_pool2d(edges ** 2, 8) + 1e-6).log() / 2


def _texture_loss(made: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """How far detail is from that of the portraits: block by block for those that were decoded,
    sorted for what was drawn.
    """
    own, wanted = _texture(made), _texture(true)
    drawn = own[len(true):].flatten().sort().values
    return ((own[:len(true)] - wanted).abs().mean()
            + (drawn - wanted.flatten().sort().values).abs().mean())


def _cells(latents: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """The latents of a patch, round the middle most often."""
    side = _PATCH // _CELL
    most = latents.shape[-1] - side
    places = np.clip(random.normal(most / 2, most / 3, (len(latents), 2)).round(), 0, most)
    return torch.stack([row[:, y:y + side, x:x + side] for row, (x, y) in
                        zip(latents, places.astype(int), strict=True)])


def look(network: torch.nn.Module, pool: torch.Tensor, held: crops.Pictures, work: Path) -> str:
    """Likeness of decoded portraits, sharpness of decoded samples, and a sheet of both."""
    with torch.no_grad():
        made = network.taesd_decoder(pool[:48]).clamp(0, 1)
    told = autoencoder.look(network, held, work)
    pixels = (made * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    faces = measure.seen_faces(pixels)
    good = [number for number, face in enumerate(faces) if face is not None]
    sharp = measure.quality(pixels[good], [faces[number] for number in good])["sharpness"]
    Image.fromarray(np.concatenate([np.concatenate(list(pixels[row:row + 12]), axis=1)
                                    for row in range(0, 48, 12)])).save(work / "sharpened.png")
    return f"{told}; drawn: {len(good)} of 48 with one face, sharpness {sharp:.1f}"


if __name__ == "__main__":
    states.run(train, __doc__)
