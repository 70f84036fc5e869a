"""Packs what was trained into the one checkpoint that ComfyUI loads.

    python tests/demonstrator/checkpoint.py WORK [--out launcher/demonstrator/NAME.safetensors]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import autoencoder
import networks
import torch
from pack_import import ROOT, prepare_imports

NAME = "likeness_demonstrator.safetensors"
LARGEST = 25_000_000  # bytes


def checkpoint(work: Path, start: Path | None) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors in the layout of an SD1.5 checkpoint, and what the file says of itself."""
    prepare_imports()
    from launcher.tiny.architectures import register

    state = torch.load(work / "denoiser.pt", weights_only=True)
    encoded = torch.load(work / "latents.pt", weights_only=True)
    config = register()["demonstrator"](networks.UNET)
    weights = autoencoder.finished(work, start).state_dict()
    weights["vae_scale"] = torch.tensor(encoded["scale"])
    weights["vae_shift"] = torch.tensor(-encoded["shift"] / encoded["scale"])
    text = {name: value for name, value in state["text_average"].items()
            if "logit_scale" not in name and "text_projection" not in name}
    tensors = {**config.process_unet_state_dict_for_saving(state["unet_average"]),
               **config.process_vae_state_dict_for_saving(weights),
               **config.process_clip_state_dict_for_saving(text)}
    halves = {name: value.half().contiguous() if value.is_floating_point() else value
              for name, value in tensors.items()}
    about = {"modelspec.title": "Likeness demonstrator", "modelspec.license": "Apache-2.0",
             "modelspec.prediction_type": "v", "modelspec.resolution": "128x128",
             "training": json.dumps({"denoiser_steps": state["step"],
                                     "denoiser_minutes": round(state["seconds"] / 60)})}
    return halves, about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT",
                        help="whose autoencoder is kept where WORK has none")
    parser.add_argument("--out", type=Path, default=ROOT / "launcher" / "demonstrator" / NAME)
    options = parser.parse_args()
    from safetensors.torch import save_file

    tensors, about = checkpoint(options.work, options.start)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.out, about)
    size = options.out.stat().st_size
    print(f"{size} bytes in {options.out}")
    if size > LARGEST:
        raise SystemExit(f"That is more than {LARGEST} bytes.")


if __name__ == "__main__":
    main()
