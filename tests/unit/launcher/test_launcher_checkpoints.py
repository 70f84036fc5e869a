"""What a checkpoint's header says about its family."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from launcher.checkpoints import read_family


@pytest.mark.parametrize("name, expected", [
    ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight",
     ("FLUX", 1024, 1.0, "euler", "simple")),
    ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
     ("Stable Diffusion 3", 1024, 4.5, "euler", "sgm_uniform")),
    ("model.diffusion_model.label_emb.0.0.weight", ("SDXL", 1024, None, None, None)),
    ("model.diffusion_model.input_blocks.0.0.weight",
     ("Stable Diffusion 1.5 or 2", 512, None, None, None)),
])
def test_a_tensors_name_gives_the_family_away(tmp_path, name, expected):
    file = tmp_path / "c.safetensors"
    save_file({name: torch.zeros(1), "model.diffusion_model.out.weight": torch.zeros(1)}, file)
    family = read_family(file)
    assert (family.title, family.side, family.cfg, family.sampler, family.scheduler) == expected


def test_another_file_tells_nothing(tmp_path):
    (tmp_path / "c.ckpt").write_bytes(b"PK" * 100)
    assert read_family(tmp_path / "c.ckpt") is None
    assert read_family(tmp_path / "none.safetensors") is None
