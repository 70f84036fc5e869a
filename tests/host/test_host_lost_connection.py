"""A server that is out of reach for a while: nothing is queued twice and nothing is lost."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest
from flaky_proxy import FlakyProxy

from launcher.client import runs
from launcher.client.api import Client
from launcher.client.refusals import Unreachable
from launcher.command_line import main


@pytest.fixture
def proxy(host):
    parts = urlsplit(host.client.url)
    between = FlakyProxy(parts.hostname, parts.port)
    yield between
    between.close()


def drawing(graph, seed, steps=40):
    """A prompt that takes a second or two."""
    loader = graph.add("CheckpointLoaderSimple", ckpt_name="tiny_sd15.safetensors")
    words = graph.add("CLIPTextEncode", clip=loader(1), text="portrait")
    empty = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    latent = graph.add("KSampler", model=loader(0), positive=words, negative=words,
                       latent_image=empty, seed=seed, steps=steps, cfg=2.0, sampler_name="euler",
                       scheduler="simple", denoise=1.0)
    graph.add("SaveImage", images=graph.add("VAEDecode", samples=latent, vae=loader(2)),
              filename_prefix="lost/picture")
    return graph.prompt


def prompts_taken(host):
    """How many prompts a server has been given so far, by its own words."""
    return host.log.count("got prompt")


def test_a_connection_that_breaks_while_it_runs_is_made_again(host, proxy, graph):
    prompt, seen, before = drawing(graph, seed=101), [], prompts_taken(host)

    def on_event(event):
        seen.append(event["type"])
        if seen.count("progress") == 2 and event["type"] == "progress":
            proxy.cut(1.0)

    run = runs.run(Client(proxy.url), prompt, on_event, timeout=120, patience=30)
    assert seen.count("progress") >= 2
    assert len(run.files()) == 1
    assert prompts_taken(host) == before + 1


def test_a_lost_answer_to_queuing_queues_nothing_twice(host, proxy, graph):
    prompt, before = drawing(graph, seed=102), prompts_taken(host)
    proxy.swallow = b"POST /prompt"
    run = runs.run(Client(proxy.url), prompt, timeout=120, patience=30)
    assert proxy.swallow == b"", "an answer was lost"
    assert len(run.files()) == 1
    assert prompts_taken(host) == before + 1


def test_a_server_that_stays_away_is_one_sentence(host, proxy, graph):
    prompt = drawing(graph, seed=103)

    def on_event(event):
        proxy.cut(3600)

    with pytest.raises(Unreachable, match="went away while the workflow ran"):
        runs.run(Client(proxy.url), prompt, on_event, timeout=120, patience=1.0)


def test_a_workflow_is_queued_now_and_fetched_later(host, graph, tmp_path, capfd):
    file = tmp_path / "drawing.json"
    file.write_text(json.dumps(drawing(graph, seed=104)))
    assert main(["queue", str(file), "--server", host.client.url, "--no-wait"]) == 0
    prompt_id = capfd.readouterr().out.split("Queued as ")[1].split(";")[0]
    fetch = ["fetch", prompt_id, "--server", host.client.url, "--out", str(tmp_path / "out"),
             "--json", str(tmp_path / "told.json")]
    code = main(fetch)
    while code == 7:
        complained = capfd.readouterr().err
        assert complained.startswith(f"The workflow {prompt_id} has not ended")
        code = main(fetch)
    told = json.loads((tmp_path / "told.json").read_text("utf-8"))
    assert (code, told["prompt_id"]) == (0, prompt_id)
    (picture,) = told["files"]
    assert (tmp_path / "out" / "lost").is_dir() and picture.endswith(".png")


@pytest.mark.parametrize("arguments, code, words", [
    (["fetch", "unknown", "--server", "{url}"], 1, "knows no workflow unknown"),
    (["queue", "{file}", "--no-wait"], 1, "needs a server that stays"),
    (["queue", "{file}", "--no-wait", "--server", "{url}", "--out", "x"], 1, "give them to"),
    (["queue", "{refused}", "--server", "{url}"], 3, "refused"),
    (["queue", "{failing}", "--server", "{url}"], 4, "failed"),
    (["queue", "{file}", "--server", "127.0.0.1:1"], 6, "No ComfyUI server answers"),
])
def test_every_ending_has_an_exit_code_of_its_own(host, new_graph, tmp_path, capfd, arguments, code,
                                                  words):
    whole = drawing(new_graph(), seed=105, steps=2)
    refused = json.loads(json.dumps(whole))
    refused["1"]["inputs"]["ckpt_name"] = "absent.safetensors"
    failing = json.loads(json.dumps(whole))
    failing["3"] = {"class_type": "EmptySD3LatentImage",
                    "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    failing["5"]["inputs"]["samples"] = ["3", 0]
    names = {"url": host.client.url}
    for name, prompt in {"file": whole, "refused": refused, "failing": failing}.items():
        names[name] = tmp_path / f"{name}.json"
        names[name].write_text(json.dumps(prompt))
    assert main([argument.format(**names) for argument in arguments]) == code
    complained = capfd.readouterr().err
    assert words in complained and complained.strip().count("\n") == 0
