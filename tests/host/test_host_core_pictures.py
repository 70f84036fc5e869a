"""The test host itself: it boots with the pack, and core draws a picture on every tiny model."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from likeness.nodes import LikenessExtension
from PIL import Image


def test_server_boots_and_imports_the_pack(host):
    assert "IMPORT FAILED" not in host.log
    assert "Error while calling comfy_entrypoint" not in host.log
    assert "comfyui-likeness" in host.log  # in the list of import times


def test_object_info_lists_every_node_of_the_pack(object_info):
    # In a thread: the browser of other tests keeps an event loop running in this one.
    with ThreadPoolExecutor() as pool:
        nodes = pool.submit(asyncio.run, LikenessExtension().get_node_list()).result()
    listed = {name for name, info in object_info.items()
              if info["python_module"] == "custom_nodes.comfyui-likeness"}
    assert listed == {node.GET_SCHEMA().node_id for node in nodes}


@pytest.mark.parametrize("architecture", ["sd15", "sdxl", "sd3", "flux"])
def test_core_nodes_draw_a_picture_with_a_tiny_checkpoint(host, graph, architecture):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=f"tiny_{architecture}.safetensors")
    words = [graph.add("CLIPTextEncode", clip=loader(1), text=text)
             for text in ("portrait of a person", "blurry")]
    empty = graph.add("EmptySD3LatentImage" if architecture in ("sd3", "flux")
                      else "EmptyLatentImage", width=64, height=64, batch_size=1)
    latent = graph.add("KSampler", model=loader(0), positive=words[0], negative=words[1],
                       latent_image=empty, seed=1, steps=2, cfg=2.0, sampler_name="euler",
                       scheduler="simple", denoise=1.0)
    pixels = graph.add("VAEDecode", samples=latent, vae=loader(2))
    save = graph.add("SaveImage", images=pixels, filename_prefix=f"core/{architecture}")

    (file,) = host.run(graph.prompt).files(save.id)

    with Image.open(host.output / file.subfolder / file.filename) as picture:
        assert picture.size == (64, 64)
        assert np.asarray(picture).std() > 1
