"""What was removed between two runs is there again after the second, though the host caches."""

from __future__ import annotations

import pytest
from training_graphs import PHOTOS, Training, files, report

from launcher.makers import sample_photos


@pytest.fixture(autouse=True)
def photos(host):
    """Three photos of one person in the server's input folder."""
    made = sample_photos.write(host.input / "all_samples")
    return host.copy_photos([made[name] for name in PHOTOS], "training")


def test_a_training_set_and_a_lora_that_were_removed_are_there_again(
        host, graph, object_info, place):
    prompt = Training(graph, object_info, "sd15", subject_name="removed")
    train = prompt.train(prompt.recipe("LoRA"), save_to="models/loras", name=f"{place}/removed")
    made = host.run(graph.prompt)
    lora = files(report(made, train))["lora"]
    content = lora.read_bytes()
    kept = sorted((host.folder / "output" / "likeness" / "removed" / "training_set").iterdir())

    lora.unlink()
    again = host.run(graph.prompt)
    assert train()[0] not in again.executed and len(lora.read_bytes()) == len(content)

    for path in kept:
        path.unlink()
    healed = host.run(graph.prompt)
    assert prompt.photos()[0] in healed.executed
    assert all(path.is_file() for path in kept)
    quiet = host.run(graph.prompt)
    assert prompt.photos()[0] not in quiet.executed

    kept[0].unlink()
    other = Training(type(graph)(), object_info, "sd15", subject_name="removed")
    other.train(other.recipe("LoRA", rank=2), save_to="models/loras", name=f"{place}/other")
    host.run(other.graph.prompt)
    assert kept[0].is_file()
