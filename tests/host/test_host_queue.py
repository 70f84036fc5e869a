"""The launcher's client against a real server: refusals, failures, cancel, cache, files."""

from __future__ import annotations

import pytest

from launcher.client.refusals import FailedPrompt, InterruptedPrompt, RejectedPrompt
from launcher.client.workflows import load_workflow
from launcher.hosts.host import ROOT
from launcher.inputs import inputs_of

MODEL_FILES = (".safetensors", ".pth", ".bin")
CONTROLS = {"sd15": "tiny_sd15_pose", "sdxl": "tiny_sdxl_pose", "sd3": "tiny_sd3_pose",
            "flux": "tiny_flux_union"}


def sampling(graph, architecture="sd15", steps=2, seed=1, control=None):
    """Add loader, prompts, sampler and save node; return the save node."""
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=f"tiny_{architecture}.safetensors")
    positive, negative = (graph.add("CLIPTextEncode", clip=loader(1), text=text)
                          for text in ("portrait", "blurry"))
    if control:
        net = graph.add("ControlNetLoader", control_net_name=f"{control}.safetensors")
        picture = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0xC08040)
        applied = graph.add("ControlNetApplyAdvanced", positive=positive, negative=negative,
                            control_net=net, image=picture, strength=1.0, start_percent=0.0,
                            end_percent=1.0, vae=loader(2))
        positive, negative = applied(0), applied(1)
    empty = graph.add("EmptySD3LatentImage" if architecture in ("sd3", "flux")
                      else "EmptyLatentImage", width=64, height=64, batch_size=1)
    latent = graph.add("KSampler", model=loader(0), positive=positive, negative=negative,
                       latent_image=empty, seed=seed, steps=steps, cfg=2.0, sampler_name="euler",
                       scheduler="simple", denoise=1.0)
    return graph.add("SaveImage", images=graph.add("VAEDecode", samples=latent, vae=loader(2)),
                     filename_prefix=f"queue/{architecture}")


def picture_bytes(host, run, tmp_path):
    (file,) = run.files()
    return host.client.download(file, tmp_path / file.filename).read_bytes()


def test_a_missing_checkpoint_is_named_with_what_there_is(host, graph):
    loader = graph.add("CheckpointLoaderSimple", "Model", ckpt_name="absent.safetensors")
    graph.add("SaveImage", images=graph.add(
        "VAEDecode", samples=graph.add("EmptyLatentImage", width=64, height=64, batch_size=1),
        vae=loader(2)), filename_prefix="x")
    with pytest.raises(RejectedPrompt, match="refused `Model`.*is `absent.safetensors`, but there "
                                             "is .*tiny_sd15.safetensors"):
        host.run(graph.prompt)


def test_a_node_that_raises_is_named_with_its_reason(host, graph):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name="tiny_sd15.safetensors")
    sixteen = graph.add("EmptySD3LatentImage", width=64, height=64, batch_size=1)
    graph.add("SaveImage", images=graph.add("VAEDecode", "Decode", samples=sixteen,
                                            vae=loader(2)), filename_prefix="x")
    with pytest.raises(FailedPrompt, match="^`Decode` failed: RuntimeError: .*channels"):
        host.run(graph.prompt)


def test_a_cancelled_run_says_so_and_the_server_goes_on(host, graph):
    sampling(graph, steps=5000, seed=2)
    with pytest.raises(InterruptedPrompt):
        host.run(graph.prompt, host.cancel_at(3))
    graph.prompt["5"]["inputs"]["steps"] = 2
    assert host.run(graph.prompt).files()


def test_a_second_run_takes_everything_from_the_cache(host, graph):
    save = sampling(graph, seed=3)
    assert save.id in host.run(graph.prompt).executed
    assert host.run(graph.prompt).executed == set()


def test_an_uploaded_file_comes_back_as_it_was(host, assets, tmp_path):
    photo = tmp_path / "selfie \u00e9t\u00e9.jpg"
    photo.write_bytes((assets / "obama.jpg").read_bytes())
    name = host.client.upload(photo, "likeness_upload")
    assert (host.input / "likeness_upload" / name).read_bytes() == photo.read_bytes()
    assert name == photo.name


@pytest.mark.parametrize("architecture", list(CONTROLS))
def test_a_tiny_controlnet_steers_its_checkpoint(host, graph, tmp_path, architecture):
    sampling(graph, architecture)
    free = picture_bytes(host, host.run(graph.prompt), tmp_path)
    graph.prompt.clear()
    sampling(graph, architecture, control=CONTROLS[architecture])
    assert picture_bytes(host, host.run(graph.prompt), tmp_path) != free


@pytest.mark.parametrize("file", sorted((ROOT / "workflows" / "api").glob("*.json")),
                         ids=lambda file: file.stem)
def test_a_workflows_values_lie_within_what_the_host_takes(object_info, file):
    for one in inputs_of(load_workflow(file), object_info):
        schema = one.schema
        assert "description" in schema or not one.node_class.startswith("Likeness"), one.name
        if "enum" in schema and not str(one.value).endswith(MODEL_FILES):
            assert one.value in schema["enum"], one.name
        low, high = schema.get("minimum", one.value), schema.get("maximum", one.value)
        assert low <= one.value <= high if not isinstance(one.value, str) else True, one.name
