"""The demonstrator's networks: a small U-Net in SD1.5's wiring and a small CLIP.

Sizes stand in `launcher/tiny/architectures`, where hosts learn to recognise the checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pack_import import prepare_imports
from safetensors.torch import load_file

LATENT = 16  # channels
SIDE = 16  # latent cells a side
WIDTH = 48  # of text tokens
UNET = {"image_size": 32, "in_channels": LATENT, "out_channels": LATENT, "model_channels": 64,
        "num_res_blocks": [1, 1, 1], "channel_mult": [1, 2, 2], "transformer_depth": [1, 1, 1],
        "transformer_depth_middle": 1, "transformer_depth_output": [1] * 6, "num_heads": -1,
        "num_head_channels": 32, "use_spatial_transformer": True, "context_dim": WIDTH,
        "use_linear_in_transformer": False, "adm_in_channels": None, "legacy": False,
        "use_checkpoint": False}
CLIP = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4,
        "num_hidden_layers": 2, "projection_dim": WIDTH}


def build_unet() -> torch.nn.Module:
    """An untrained U-Net of the host's own class; blocks end in zeros, as the published ones."""
    prepare_imports()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    torch.manual_seed(1)
    network = UNetModel(**UNET, dtype=torch.float32, device="cpu",
                        operations=comfy.ops.disable_weight_init)
    _draw(network)
    for name, value in network.named_parameters():
        if any(part in name for part in (".out_layers.3.", "proj_out.", "out.2.")):
            torch.nn.init.zeros_(value)
    return network  # not channels last: group norms take three times as long there


def build_text() -> tuple[torch.nn.Module, object]:
    """An untrained text encoder of the host's own class, and its tokenizer."""
    prepare_imports()
    import comfy.sd1_clip

    torch.manual_seed(2)
    encoder = comfy.sd1_clip.SD1ClipModel(device="cpu", dtype=torch.float32,
                                          model_options={"clip_l_model_config": dict(CLIP)})
    transformer = encoder.clip_l.transformer
    _draw(transformer)
    for name, value in transformer.named_parameters():
        if "embedding" in name:
            torch.nn.init.normal_(value, 0, 0.1)
    return encoder, comfy.sd1_clip.SD1Tokenizer()


def use_plain_attention() -> None:
    """Let the host's blocks compute attention as products: in bfloat16 on a CPU, for a few hundred
    tokens, the fused kernels and the host's own splitting take twice as long.
    """
    import comfy.ldm.modules.attention

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int,
                  mask: object = None, **_: object) -> torch.Tensor:
        rows, count, width = q.shape
        q, k, v = (part.reshape(rows, -1, heads, width // heads).transpose(1, 2)
                   for part in (q, k, v))
        scores = (q * (width // heads) ** -0.5) @ k.transpose(-1, -2)
        return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(rows, count, width)

    comfy.ldm.modules.attention.optimized_attention = attention


def _draw(network: torch.nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
        elif isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm):
            torch.nn.init.ones_(module.weight)
            torch.nn.init.zeros_(module.bias)


def encode(encoder: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Conditionings (B, 77, WIDTH) of tokens (B, 77), as the host makes them.

    Layer by layer, because the host adds in place, which autograd refuses.
    """
    from comfy.ldm.modules.attention import attention_pytorch

    model = encoder.clip_l.transformer.text_model
    x = model.embeddings(rows)
    mask = torch.full((x.shape[1],) * 2, -torch.finfo(x.dtype).max).triu_(1)
    for layer in model.encoder.layers:
        x = x + layer.self_attn(layer.layer_norm1(x), mask, attention_pytorch)
        x = x + layer.mlp(layer.layer_norm2(x))
    return model.final_layer_norm(x)


def levels() -> torch.Tensor:
    """SD1.5's schedule: the share of signal (variance) at each of the 1000 steps."""
    return (1 - torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000) ** 2).cumprod(0)


def unpack(file: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of a packed checkpoint, by network: unet, vae, text; as the classes name them."""
    prefixes = {"unet": "model.diffusion_model.", "vae": "first_stage_model.",
                "text": "cond_stage_model."}
    stored = load_file(file)
    return {part: {name.removeprefix(prefix): value.float() for name, value in stored.items()
                   if name.startswith(prefix)} for part, prefix in prefixes.items()}
