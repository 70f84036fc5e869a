"""The small base model in a host, and the strip that shows what a demo did."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from launcher.demonstrator.install import CHECKPOINT, FILE, install
from launcher.hosts.host import Host
from launcher.makers import strip
from launcher.tiny.architectures import register

COLOURS = {"photos": (200, 0, 0), "before": (0, 200, 0), "after": (0, 0, 200),
           "styled": (200, 200, 0)}


def test_a_host_gets_the_checkpoint_and_what_recognises_it(tmp_path):
    host = Host(tmp_path, Path("python"), embedded=True)
    place = host.models / "checkpoints" / CHECKPOINT
    place.parent.mkdir(parents=True)
    place.write_bytes(b"of an earlier version")

    install(host)

    assert place.read_bytes() == FILE.read_bytes()
    (link,) = host.custom_nodes.iterdir()
    assert (link / "__init__.py").is_file()
    before = place.stat().st_mtime_ns
    install(host)
    assert place.stat().st_mtime_ns == before
    assert [file.name for file in place.parent.iterdir()] == [CHECKPOINT]


def test_the_checkpoint_stays_small():
    assert FILE.stat().st_size <= 25_000_000


def test_another_size_than_it_draws_is_one_sentence():
    import comfy.sd
    import torch

    import nodes

    register()
    with torch.inference_mode():
        model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(str(FILE), output_vae=False)
        words, = nodes.CLIPTextEncode().encode(clip, "photo of a man")

        def draw(width, height):
            latent, = nodes.EmptyLatentImage().generate(width, height, 1)
            return nodes.KSampler().sample(model, 1, 1, 1.0, "euler", "normal", words, words,
                                           latent, 1.0)[0]["samples"].shape

        assert draw(128, 128) == (1, 16, 16, 16)
        for width, height in ((512, 512), (128, 160)):
            with pytest.raises(ValueError, match="draws pictures of 128 x 128 pixels alone, and is "
                                                 f"asked for {width} x {height}; set width"):
                draw(width, height)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_a_strip_shows_every_kind_in_its_place(tmp_path, count):
    kinds = {}
    for kind, colour in COLOURS.items():
        kinds[kind] = [tmp_path / f"{kind}{number}.png" for number in range(count)]
        for file in kinds[kind]:
            Image.new("RGB", (300, 400), colour).save(file)
    drawn = strip.draw(kinds)
    width = (drawn.width + 20) // len(COLOURS)
    for number, (kind, colour) in enumerate(COLOURS.items()):
        assert drawn.getpixel((number * width + 5, 5)) == colour, kind
