"""Trains the demonstrator's U-Net and text encoder on encoded crops.

    python tests/demonstrator/denoiser.py WORK --minutes M [--start CHECKPOINT]

Needs WORK/autoencoder.pt; encodes crops once into WORK/latents.pt; goes on from WORK/denoiser.pt
where there is one, else from a packed checkpoint's weights.
Velocity prediction (Salimans and Ho 2022, arXiv 2202.00512) on SD1.5's schedule.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import autoencoder
import captions
import crops
import networks
import numpy as np
import torch
from PIL import Image

BATCH = 32
_RATE, _EMA, _WARMUP = 5e-4, 0.9995, 300
_CROPS = 24000
_LOOK = 300  # seconds between sheets
PROMPTS = ("photo of a man, smiling, dark suit, blue background",
           "photo of a woman, smiling, red jacket, grey background",
           "photo of an old man, wearing glasses, neutral expression",
           "photo of a young woman, neutral expression, white background")


def encode_crops(work: Path, start: Path | None) -> None:
    """Write WORK/latents.pt: latents (N, 8, 16, 16), labels, and their deviation and mean, or
    those that a packed checkpoint knows.
    """
    file = work / "latents.pt"
    if file.is_file():
        return
    sets, random = crops.read(work), np.random.default_rng(7)
    network = autoencoder.build()
    network.load_state_dict(torch.load(work / "autoencoder.pt", weights_only=True)["average"])
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
    part = file.with_suffix(".part")
    torch.save({"latents": latents, "labels": labels, "scale": scale, "shift": shift}, part)
    os.replace(part, file)


class Training:
    """Networks, their averages, the optimiser and the number of the step; stored together."""

    def __init__(self, file: Path, start: Path | None = None) -> None:
        self.file = file
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
        self.optimizer = torch.optim.AdamW(self.learned, lr=_RATE, betas=(0.9, 0.99),
                                           weight_decay=0.01)
        self.step, self.seconds = 0, 0.0
        if file.is_file():
            state = torch.load(file, weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.step, self.seconds = state["step"], state["seconds"]

    def _parts(self) -> dict:
        return {"unet": self.unet, "unet_average": self.unet_average, "text": self.text,
                "text_average": self.text_average, "optimizer": self.optimizer}

    def store(self) -> None:
        part = self.file.with_suffix(".part")
        torch.save({name: kept.state_dict() for name, kept in self._parts().items()}
                   | {"step": self.step, "seconds": self.seconds}, part)
        os.replace(part, self.file)

    def follow(self) -> None:
        """Move the averages towards the weights."""
        keep = min(_EMA, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for means, values in ((self.unet_average, self.unet), (self.text_average, self.text)):
                for mean, value in zip(means.parameters(), values.parameters(), strict=True):
                    mean.lerp_(value, 1 - keep)


def train(work: Path, minutes: float, start: Path | None = None) -> None:
    encode_crops(work, start)
    stored = torch.load(work / "latents.pt", weights_only=True)
    latents = (stored["latents"].float() - stored["shift"]) / stored["scale"]
    training, signal = Training(work / "denoiser.pt", start), networks.levels()
    networks.use_plain_attention()
    random = np.random.default_rng(training.step + 1)
    torch.manual_seed(training.step + 1)
    losses, stored_at, looked = [], time.time(), time.time()
    started = time.time() - training.seconds
    while (spent := time.time() - started) < minutes * 60:
        share = spent / (minutes * 60)
        for group in training.optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (training.step + 1) / _WARMUP) * (
                0.02 + 0.98 * min(1.0, 2 * (1 - share)))  # falls in the second half
        chosen = random.integers(len(latents), size=BATCH)
        clean = latents[chosen]
        rows = torch.tensor([captions.tokens(captions.caption(stored["labels"][row], random),
                                             training.tokenizer, random) for row in chosen])
        # One level per stratum: a batch sees all of them.
        steps = ((torch.arange(BATCH) + torch.rand(BATCH)) / BATCH * 1000).long()
        share_of = signal[steps].view(-1, 1, 1, 1)
        noise = torch.randn_like(clean)
        noisy = share_of.sqrt() * clean + (1 - share_of).sqrt() * noise
        target = share_of.sqrt() * noise - (1 - share_of).sqrt() * clean
        context = networks.encode(training.text, rows)
        with torch.autocast("cpu", torch.bfloat16):
            made = training.unet(noisy, steps.float(), context=context)
        loss = ((made.float() - target) ** 2).mean()
        training.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(training.learned, 1.0)
        training.optimizer.step()
        training.follow()
        training.step += 1
        losses.append(float(loss.detach()))
        if time.time() - stored_at > 120:
            training.seconds, stored_at = time.time() - started, time.time()
            training.store()
            print(f"step {training.step}, {training.seconds / 60:.1f} min: loss "
                  f"{np.mean(losses):.4f}", flush=True)
            losses = []
        if time.time() - looked > _LOOK:
            sheet(training, work, stored)
            looked = time.time()
    training.seconds = time.time() - started
    training.store()
    sheet(training, work, stored)


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


def sheet(training: Training, work: Path, stored: dict) -> None:
    """A sheet of 4 prompts by 8 seeds."""
    decoder = autoencoder.build()
    decoder.load_state_dict(torch.load(work / "autoencoder.pt", weights_only=True)["average"])
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, required=True, help="of training in all")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT")
    options = parser.parse_args()
    train(options.work, options.minutes, options.start)


if __name__ == "__main__":
    main()
