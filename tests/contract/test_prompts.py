"""The shipped API prompts against the inputs that hosts require, this one and a newer one."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from pathlib import Path

import likeness
import pytest

PROMPTS = sorted((Path(likeness.__file__).parent / "workflows" / "api").glob("*.json"))
# What core nodes of the prompts require on ComfyUI 0.33.0 (August 2026).
NEWER: dict[str, set[str]] = {
    "CLIPTextEncode": {"clip", "text"}, "CheckpointLoaderSimple": {"ckpt_name"},
    "ControlNetLoader": {"control_net_name"},
    "EmptyLatentImage": {"width", "height", "batch_size"},
    "EmptySD3LatentImage": {"width", "height", "batch_size"},
    "FluxGuidance": {"conditioning", "guidance"},
    "KSampler": {"model", "seed", "steps", "cfg", "sampler_name", "scheduler", "positive",
                 "negative", "latent_image", "denoise"},
    "LossGraphNode": {"loss", "filename_prefix"}, "PreviewImage": {"images"},
    "SaveImage": {"images", "filename_prefix"}, "StringReplace": {"string", "find", "replace"},
    "VAEDecode": {"samples", "vae"},
}


@cache
def _required_here() -> dict[str, set[str]]:
    """What every node of this host requires, the pack's own too."""
    import nodes  # ComfyUI's

    asyncio.run(nodes.init_builtin_extra_nodes())
    found = {name: set(kind.INPUT_TYPES().get("required", {}))
             for name, kind in nodes.NODE_CLASS_MAPPINGS.items() if name in NEWER}
    extension = asyncio.run(likeness.comfy_entrypoint())
    for node in asyncio.run(extension.get_node_list()):
        schema = node.GET_SCHEMA()
        found[schema.node_id] = {one.id for one in schema.inputs if not one.optional}
    return found


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_a_prompt_carries_every_input_that_a_host_requires(path):
    here = _required_here()
    for key, entry in json.loads(path.read_text()).items():
        kind, given = entry["class_type"], set(entry["inputs"])
        assert kind in here, f"{path.name}: {kind} is neither the pack's nor in the list of core's"
        for required in (here[kind], NEWER.get(kind, set())):
            assert required <= given, f"{path.name}: {key} lacks {sorted(required - given)}"
