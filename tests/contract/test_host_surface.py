"""The canary: every part of ComfyUI that the pack relies on, asked of the host that runs this.

What only some hosts have is asked for where it is used and does not stand here.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import comfy.model_base
import comfy.model_patcher
import comfy.ops
import comfy.sd
import likeness
import pytest

ROOT = Path(likeness.__file__).parent / "nodes"
HOST = ("comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths")
# Dotted names, with the parameters that are given by name.
SURFACE: dict[str, tuple[str, ...]] = {
    "comfy.ldm.flux.math": (),
    "comfy.ldm.modules.attention.attention_pytorch": ("skip_reshape", "skip_output_reshape"),
    "comfy.ldm.modules.attention.optimized_attention": (),
    "comfy.lora.calculate_weight": (),
    "comfy.lora.load_lora": (),
    "comfy.lora.model_lora_keys_clip": (),
    "comfy.lora.model_lora_keys_unet": (),
    "comfy.lora_convert.convert_lora": (),
    "comfy.model_base.Flux": (),
    "comfy.model_base.ModelType.V_PREDICTION": (),
    "comfy.model_base.SD3": (),
    "comfy.model_management.InterruptProcessingException": (),
    "comfy.model_management.OOM_EXCEPTION": (),
    "comfy.model_management.current_loaded_models": (),
    "comfy.model_management.extra_reserved_memory": (),
    "comfy.model_management.free_memory": ("keep_loaded",),
    "comfy.model_management.get_torch_device": (),
    "comfy.model_management.get_total_memory": (),
    "comfy.model_management.intermediate_device": (),
    "comfy.model_management.load_models_gpu": ("memory_required", "force_full_load"),
    "comfy.model_management.should_use_bf16": (),
    "comfy.model_management.soft_empty_cache": (),
    "comfy.model_management.throw_exception_if_processing_interrupted": (),
    "comfy.model_management.unet_offload_device": (),
    "comfy.model_patcher.ModelPatcher": ("load_device", "offload_device"),
    "comfy.ops.cast_bias_weight": ("dtype", "device", "bias_dtype", "offloadable"),
    "comfy.ops.uncast_bias_weight": (),
    "comfy.patcher_extension.PatcherInjection": ("inject", "eject"),
    "comfy.sample.fix_empty_latent_channels": (),
    "comfy.sample.prepare_noise": (),
    "comfy.sample.sample": ("noise_mask", "callback", "disable_pbar", "seed"),
    "comfy.samplers.KSampler.SAMPLERS": (),
    "comfy.samplers.KSampler.SCHEDULERS": (),
    "comfy.sd.load_checkpoint_guess_config": ("output_vae", "output_clip"),
    "comfy.sd.save_checkpoint": ("clip", "vae", "metadata"),
    "comfy.sd1_clip": (),
    "comfy.supported_models.SD15": (),
    "comfy.supported_models.SD20": (),
    "comfy.utils.ProgressBar": (),
    "comfy.utils.flux_to_diffusers": (),
    "comfy.utils.get_attr": (),
    "comfy.utils.load_torch_file": ("safe_load",),
    "comfy.utils.mmdit_to_diffusers": (),
    "comfy.utils.unet_to_diffusers": (),
    "comfy_api.latest.ComfyExtension": (),
    "comfy_api.latest.io": (),
    "comfy_api.latest.ui": (),
    "comfy_execution.graph_utils.ExecutionBlocker": (),
    "comfy_execution.graph_utils.GraphBuilder": (),
    "comfy_execution.utils.get_executing_context": (),
    "folder_paths.folder_names_and_paths": (),
    "folder_paths.get_filename_list": (),
    "folder_paths.get_folder_paths": (),
    "folder_paths.get_full_path": (),
    "folder_paths.get_input_directory": (),
    "folder_paths.get_output_directory": (),
    "folder_paths.get_temp_directory": (),
    "folder_paths.models_dir": (),
    "folder_paths.supported_pt_extensions": (),
}
# What is asked of the objects that nodes are given.
MEMBERS = {
    comfy.model_patcher.ModelPatcher: (
        "add_patches", "clone", "eject_model", "get_model_object", "inject_model", "is_clone",
        "model_size", "remove_injections", "set_injections", "set_model_attn2_replace"),
    comfy.model_base.BaseModel: (
        "apply_model", "extra_conds", "get_dtype", "memory_required", "process_latent_in"),
    comfy.sd.CLIP: ("add_hooks_to_dict", "clone", "encode_from_tokens_scheduled", "load_model",
                    "tokenize"),
    comfy.sd.VAE: ("decode", "encode"),
    comfy.ops.disable_weight_init.Linear: ("comfy_cast_weights", "weight_function",
                                           "bias_function"),
}
STATE = ("backup", "hook_patches", "injections", "is_injected", "load_device", "model",
         "model_options", "object_patches", "object_patches_backup", "offload_device", "patches",
         "wrappers")


def _found(name: str) -> object:
    """The object of a dotted name; an AttributeError or ImportError where it is gone."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            value = getattr(value, part)
        return value
    raise ImportError(name)


@pytest.mark.parametrize("name", SURFACE)
def test_the_host_has_what_the_pack_relies_on(name):
    try:
        found = _found(name)
    except (ImportError, AttributeError):
        pytest.fail(f"ComfyUI has no {name} any more; see who uses it below nodes/", pytrace=False)
    if SURFACE[name]:
        known = inspect.signature(found).parameters
        taken = any(one.kind is one.VAR_KEYWORD for one in known.values())
        lost = [one for one in SURFACE[name] if one not in known and not taken]
        assert not lost, f"{name} of ComfyUI takes no `{', '.join(lost)}` any more"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in MEMBERS.items()
                                            for name in names])
def test_the_hosts_objects_have_what_the_pack_asks_of_them(kind, name):
    assert hasattr(kind, name), f"ComfyUI's {kind.__qualname__} has no `{name}` any more"


def test_a_model_patcher_holds_what_the_pack_reads():
    import torch

    cpu = torch.device("cpu")
    patcher = comfy.model_patcher.ModelPatcher(torch.nn.Linear(1, 1), cpu, cpu)
    lost = [name for name in STATE if not hasattr(patcher, name)]
    assert not lost, f"ComfyUI's ModelPatcher has no {', '.join(lost)} any more"


def _used() -> Iterator[str]:
    """The dotted names of the host in the pack's source, as far as they are written out."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level and (
                    node.module.split(".")[0] in HOST):
                yield from (f"{node.module}.{name.name}" for name in node.names)
            elif isinstance(node, ast.Attribute):
                parts, inner = [], node
                while isinstance(inner, ast.Attribute):
                    parts.append(inner.attr)
                    inner = inner.value
                if isinstance(inner, ast.Name) and inner.id in HOST:
                    yield ".".join([inner.id, *reversed(parts)])


def test_the_list_is_what_the_source_uses():
    known, used = set(SURFACE), set(_used())
    for name in used:
        assert any(name.startswith(f"{one}.") or one.startswith(f"{name}.") or one == name
                   for one in known), f"{name} does not stand in the list of what is relied on"
    assert not [one for one in known if not any(
        name == one or name.startswith(f"{one}.") for name in used)]
