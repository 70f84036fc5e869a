"""A new word that starts from what is known of the face, through the queue of a real ComfyUI."""

from __future__ import annotations

import comfy.sd
import pytest
import torch
from safetensors.torch import save_file
from training_graphs import PHOTOS, Training, report

from launcher.makers import sample_photos
from launcher.makers.sample_photos import ASSETS
from launcher.tiny import checkpoints as tiny_checkpoints
from launcher.tiny import vision as tiny_vision
from launcher.tiny.random_weights import fill

KNOWN = {"barack_obama.jpg": "obama3.jpg", "joe_biden.jpg": "biden.jpg",
         "joe biden 2.jpg": "biden2.jpg"}


@pytest.fixture(scope="module", autouse=True)
def photos(host):
    """Three photos of one person and a folder of people with their names, in the input folder."""
    made = sample_photos.write(host.input / "all_samples")
    (host.input / "known").mkdir(exist_ok=True)
    for name, asset in KNOWN.items():
        (host.input / "known" / name).write_bytes((ASSETS / asset).read_bytes())
    return host.copy_photos([made[name] for name in PHOTOS], "training")


def texts_mean(clip, texts):
    """The mean of texts in CLIP-G's projected space, (64,), by the host's own encoding."""
    encoder = clip.cond_stage_model.clip_g
    encoder.set_clip_options({"projected_pooled": True})
    pooled = [encoder.encode_token_weights(clip.tokenize(text)["g"])[1][0] for text in texts]
    return torch.nn.functional.normalize(torch.stack(pooled), dim=-1).mean(0)


@pytest.fixture(scope="module")
def tower(host):
    """The name of a CLIP vision file that finds pictures near to texts of faces in tiny SDXL."""
    assert "sdxl" in tiny_checkpoints.ARCHITECTURES  # the import made the host know it
    with torch.inference_mode():
        _, clip, *_ = comfy.sd.load_checkpoint_guess_config(
            str(host.models["tiny_sdxl"]), output_vae=False, output_clip=True)
        faces = texts_mean(clip, ("a photo of a person", "a close-up of the face of a person",
                                  "a portrait photo"))
        others = texts_mean(clip, ("a photo of a bridge", "a bowl of soup", "a red car",
                                   "a page of printed text"))
        weights = fill(tiny_vision.empty_tower(), torch.float32, "vision.")
        # One channel is the same for all pictures and points to faces; the rest tells them apart.
        weights["vision_model.post_layernorm.bias"][0] = 10.0
        weights["visual_projection.weight"][:, 0] = torch.nn.functional.normalize(faces - others,
                                                                                  dim=0)
    file = host.base / "models" / "clip_vision" / "likeness_tiny_tower.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file({key: value.contiguous().clone() for key, value in weights.items()}, file)
    yield file.name
    file.unlink()


@pytest.fixture
def training(graph, object_info):
    """Begins a prompt for one of the tiny checkpoints."""
    return lambda architecture, **fields: Training(graph, object_info, architecture, **fields)


def trained(host, prompt, start):
    """Reports of the start's node, and of Train with it and without it, in one prompt."""
    recipe = prompt.recipe("TextualInversion", learning_rate=1e-4, vectors=2)
    begun = prompt.train(recipe, name="from_the_start", token_start=start())
    plain = prompt.train(recipe, name="from_the_class_word")
    run = host.run(prompt.graph.prompt)
    return report(run, start), report(run, begun), report(run, plain)


def test_names_of_people_who_look_alike_are_where_the_word_starts(host, training):
    prompt = training("sd15")
    known = prompt.add("LikenessLoadPhotos", folder="known")
    # At less, Curate Photos takes all but one of them for strangers.
    curated = prompt.add("LikenessCuratePhotos", photos=known(), max_distance=1.5)
    start = prompt.add("LikenessTokenStart", subject=prompt.subject, clip=prompt.checkpoint(1),
                       method="known faces", vectors=2, known_people=curated())
    told, begun, plain = trained(host, prompt, start)
    assert told["method"] == "known faces" and told["vectors"] == 2
    assert list(told["shares"])[0] == "barack obama"
    assert set(told["shares"]) == {"barack obama", "joe biden"}
    assert told["shares"]["barack obama"] > 0.8
    assert begun["files"].keys() == {"embedding"} and begun["steps"] == 3
    assert begun["first_loss"] != plain["first_loss"]


def test_what_clip_vision_sees_of_the_face_is_where_the_word_starts(host, training, tower):
    prompt = training("sdxl")
    vision = prompt.add("CLIPVisionLoader", clip_name=tower)
    start = prompt.add("LikenessTokenStart", subject=prompt.subject, clip=prompt.checkpoint(1),
                       method="clip vision", vectors=2, steps=20, clip_vision=vision())
    told, begun, plain = trained(host, prompt, start)
    assert told["method"] == "clip vision" and told["steps"] == 20
    assert told["cosine"]["clip_g"]["after"] > told["cosine"]["clip_g"]["before"] + 0.02
    assert len(told["nearest_words"]["clip_g"]) == 2
    assert begun["files"].keys() == {"embedding"} and begun["steps"] == 3
    assert begun["first_loss"] != plain["first_loss"]
