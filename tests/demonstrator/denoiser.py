"""Trains the demonstrator's U-Net and text encoder on encoded crops.

    python tests/demonstrator/denoiser.py WORK --minutes M [--start CHECKPOINT]

Needs WORK/autoencoder.pt or a packed checkpoint; encodes crops once into WORK/latents.pt; goes on
from WORK/denoiser.pt where there is one, else from a packed checkpoint's weights.
Velocity prediction (Salimans and Ho 2022, arXiv 2202.00512) on SD1.5's schedule.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import autoencoder
import captions
import crops
import networks
import numpy as np
import states
import torch
from PIL import Image

BATCH = 32
_RATE, _EMA, _WARMUP = 6e-4, 0.9995, 300
_CROPS = 32000
_LOOK = 300  # seconds between sheets
PROMPTS = ("photo of a man, smiling, dark suit, blue background",
           "photo of a woman, smiling, red jacket, grey background",
           "photo of an old man, wearing glasses, neutral expression",
           "photo of a young woman, neutral expression, white background",
           "professional headshot of a man, head and shoulders business headshot, facing the "
           "camera, relaxed confident expression, a tailored navy blazer over a white shirt, large "
           "soft key light with gentle fill, even skin tones, seamless light grey studio "
           "background, 85mm lens at f/5.6, sharp eyes, natural skin texture")


def encode_crops(work: Path, start: Path | None) -> None:
    """Write WORK/latents.pt: latents (N, 16, 16, 16), labels, and their deviation and mean, or
    those that a packed checkpoint knows.
    """
    file = work / "latents.pt"
    if file.is_file():
        return
    sets, random = crops.read(work), np.random.default_rng(7)
    network = autoencoder.finished(work, start)
    rows, labels = [], []
    for _ in range(0, _CROPS, 32):
        drawn = [crops.draw(sets[:2], random, steady=True) for _ in range(32)]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            rows.append(network.taesd_encoder(crops.tensor([one[0] for one in drawn])).half())
        labels += [one[2] for one in drawn]
    latents = torch.cat(rows)
    scale, shift = float(latents.float().std()), float(latents.float().mean())
    if start is not None:
        known = networks.unpack(start)["vae"]
        scale = float(known["vae_scale"])
        shift = -float(known["vae_shift"]) * scale
    states.write({"latents": latents, "labels": labels, "scale": scale, "shift": shift}, file)


class Optimizer:
    """Muon for the U-Net's kernels and matrices, AdamW for everything else.

    Kernels (O, I, H, W) are seen as matrices (O, I x H x W). Muon: Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon; its steps are as long as AdamW's (arXiv 2502.16982).
    """

    def __init__(self, unet: torch.nn.Module, text: torch.nn.Module) -> None:
        inner = [value for name, value in unet.named_parameters()
                 if value.ndim > 1 and not name.startswith(("input_blocks.0.", "out."))]
        kept = {id(value) for value in inner}
        others = [value for value in (*unet.parameters(), *text.parameters())
                  if id(value) not in kept]
        self.inner = inner
        # The matrices share the memory of the weights, so that a step changes those.
        self.matrices = [torch.nn.Parameter(value.detach().flatten(1)) for value in inner]
        self.parts = (
            torch.optim.Muon(self.matrices, lr=_RATE, weight_decay=0.01, momentum=0.95, ns_steps=4,
                             adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=_RATE, betas=(0.9, 0.99), weight_decay=0.01))

    def step(self, rate: float) -> None:
        """One step at a learning rate; the gradients are gone afterwards."""
        for matrix, value in zip(self.matrices, self.inner, strict=True):
            matrix.grad, value.grad = value.grad.flatten(1), None
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad()

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


class Training(states.State):
    """Networks, their averages and the optimiser."""

    def __init__(self, file: Path, start: Path | None = None) -> None:
        self.unet, self.unet_average = networks.build_unet(), networks.build_unet()
        self.text, self.tokenizer = networks.build_text()
        self.text_average, _ = networks.build_text()
        if start is not None:
            weights = networks.unpack(start)
            for unet, text in ((self.unet, self.text), (self.unet_average, self.text_average)):
                unet.load_state_dict(weights["unet"])
                text.clip_l.load_state_dict(weights["text"], strict=False)
        self.learned = [*self.unet.parameters(), *self.text.clip_l.transformer.parameters()]
        for value in self.learned:
            value.requires_grad_(True)
        self.optimizer = Optimizer(self.unet, self.text.clip_l.transformer)
        super().__init__(file, {
            "unet": self.unet, "unet_average": self.unet_average, "text": self.text,
            "text_average": self.text_average, "optimizer": self.optimizer})


def train(work: Path, minutes: float, start: Path | None = None) -> None:
    encode_crops(work, start)
    stored = torch.load(work / "latents.pt", weights_only=True)
    latents = (stored["latents"].float() - stored["shift"]) / stored["scale"]
    training, signal = Training(work / "denoiser.pt", start), networks.levels()
    weight = _face_weight(work)
    networks.use_plain_attention()
    random = np.random.default_rng(training.step + 1)
    torch.manual_seed(training.step + 1)
    losses, stored_at, looked = [], time.time(), time.time()
    started = time.time() - training.seconds
    while (spent := time.time() - started) < minutes * 60:
        share = spent / (minutes * 60)
        rate = _RATE * min(1.0, (training.step + 1) / _WARMUP) * (
            0.02 + 0.98 * min(1.0, 2 * (1 - share)))  # falls in the second half
        chosen = random.integers(len(latents), size=BATCH)
        rows = torch.tensor([captions.tokens(captions.caption(stored["labels"][row], random),
                                             training.tokenizer, random) for row in chosen])
        loss = _loss(training.unet, training.text, latents[chosen], rows, signal, weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(training.learned, 1.0)
        training.optimizer.step(rate)
        states.follow([training.unet_average, training.text_average],
                      [training.unet, training.text], training.step, _EMA)
        training.step += 1
        losses.append(float(loss.detach()))
        if time.time() - stored_at > 120:
            training.seconds, stored_at = time.time() - started, time.time()
            training.store()
            print(f"step {training.step}, {training.seconds / 60:.1f} min: loss "
                  f"{np.mean(losses):.4f}", flush=True)
            losses = []
        if time.time() - looked > _LOOK:
            sheet(training, work, stored, start)
            looked = time.time()
    training.seconds = time.time() - started
    training.store()
    sheet(training, work, stored, start)


def _loss(unet: torch.nn.Module, text: torch.nn.Module, clean: torch.Tensor, rows: torch.Tensor,
          signal: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The squared error of the velocity, weighted by latent cell (1, 1, SIDE, SIDE).

    One level per stratum, so that a batch sees all.
    """
    steps = ((torch.arange(len(clean)) + torch.rand(len(clean))) / len(clean) * 1000).long()
    share_of = signal[steps].view(-1, 1, 1, 1)
    noise = torch.randn_like(clean)
    noisy = share_of.sqrt() * clean + (1 - share_of).sqrt() * noise
    target = share_of.sqrt() * noise - (1 - share_of).sqrt() * clean
    context = networks.encode(text, rows)
    with torch.autocast("cpu", torch.bfloat16):
        made = unet(noisy, steps.float(), context=context)
    return (weight * (made.float() - target) ** 2).mean()


def _face_weight(work: Path) -> torch.Tensor:
    """(1, 1, SIDE, SIDE) of mean 1, three times as high where the portraits' faces lie.

    Every crop has its face in the same place, so one map serves all.
    """
    portraits = crops.read(work)[0]
    marks = [crops.plain(portraits, row)[1] for row in range(len(portraits.canvases))]
    weight = autoencoder.face_weight(marks, 8 * networks.SIDE).mean(0, keepdim=True)
    weight = torch.nn.functional.avg_pool2d(weight, 8)
    return weight / weight.mean()


def sample(unet: torch.nn.Module, context: torch.Tensor, empty: torch.Tensor, seed: int,
           steps: int = 20, cfg: float = 2.0) -> torch.Tensor:
    """Latents drawn by DDIM on evenly spaced steps."""
    signal = networks.levels()
    latent = torch.randn(len(context), networks.LATENT, networks.SIDE, networks.SIDE,
                         generator=torch.Generator().manual_seed(seed))
    times = torch.linspace(999, 0, steps + 1).long()
    both = torch.cat([context, empty.expand(len(context), -1, -1)])
    for now, then in zip(times[:-1], times[1:], strict=True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            made = unet(latent.repeat(2, 1, 1, 1), now.float().repeat(2 * len(context)),
                        context=both).float()
        with_words, without = made.chunk(2)
        velocity = without + cfg * (with_words - without)
        clean = signal[now].sqrt() * latent - (1 - signal[now]).sqrt() * velocity
        noise = (1 - signal[now]).sqrt() * latent + signal[now].sqrt() * velocity
        latent = signal[then].sqrt() * clean + (1 - signal[then]).sqrt() * noise
    return clean


def sheet(training: Training, work: Path, stored: dict, start: Path | None) -> None:
    """A sheet of 4 prompts by 8 seeds."""
    decoder = autoencoder.finished(work, start)
    words = [*PROMPTS, ""]
    rows = torch.tensor([captions.tokens(text, training.tokenizer, None) for text in words])
    with torch.no_grad():
        context = networks.encode(training.text_average, rows)
    lines = []
    for number in range(len(PROMPTS)):
        clean = sample(training.unet_average, context[number:number + 1].expand(8, -1, -1),
                       context[-1:], seed=number)
        with torch.no_grad():
            made = decoder.taesd_decoder(clean * stored["scale"] + stored["shift"]).clamp(0, 1)
        lines.append(torch.cat(list(made), dim=-1))
    picture = (torch.cat(lines, dim=-2) * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(work / f"sheet_{training.step:06d}.png")


if __name__ == "__main__":
    states.run(train, __doc__)
