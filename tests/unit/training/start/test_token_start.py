"""A new word that starts from what CLIP vision sees or from known people's names."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import text_models
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.recognise.embed import similarity
from likeness.nodes.sockets import PhotoSet, Verdict
from likeness.nodes.training.recipes.base import TokenSettings
from likeness.nodes.training.recipes.whole import TextualInversionRecipe
from likeness.nodes.training.start import known_faces, vision
from likeness.nodes.training.start.first_values import initial_text, token_start
from likeness.nodes.training.start.nodes import TokenStartNode
from likeness.nodes.training.text.encoders import TextEncoders
from likeness.nodes.training.text.host_clip import word_ids


@pytest.fixture
def clip(tmp_path):
    with torch.inference_mode():
        return text_models.make_clip("sdxl", tmp_path)


def _projected(clip, encoder, words):
    """A text in an encoder's projected space, by the host's own encoding of its tokens."""
    model = getattr(clip.cond_stage_model, encoder)
    model.set_clip_options({"projected_pooled": True})
    with torch.no_grad():
        _, pooled = model.encode_token_weights(clip.tokenize(words)[encoder.removeprefix("clip_")])
    model.reset_clip_options()
    return torch.nn.functional.normalize(pooled[0], dim=0).clone()


def _face_like(clip, encoder, hidden="a photo of a bearded captain"):
    """A direction towards texts of faces and, besides, towards something the word must find."""
    def mean(texts):
        return sum(_projected(clip, encoder, words) for words in texts) / len(texts)

    others = mean(("a photo of a bridge", "a bowl of soup", "a red car", "a page of printed text"))
    faces = mean(("a photo of a man", "a close-up of the face of a man", "a portrait photo"))
    towards = faces + _projected(clip, encoder, hidden) - 2 * others
    return torch.nn.functional.normalize(towards, dim=0)


class _Tower:
    """A CLIP_VISION of one embedding, the same for every picture."""

    image_size = 64

    def __init__(self, embedding):
        self.embedding, self.pictures = embedding, []

    def encode_image(self, image):
        self.pictures.append(image)
        return {"image_embeds": None if self.embedding is None else self.embedding[None]}


def _look(clip, image, steps=40, vectors=1):
    text = initial_text(clip, "ohwx", "man", vectors, "")
    names, reasons = vision.comparable(text, image, "man")
    before = {name: rows.detach().clone() for name, rows in text.tokens.rows.items()}
    return text, before, vision.look(text, image, names, steps), reasons


def test_the_word_comes_nearer_to_the_pictures_in_the_space_of_the_tower(clip):
    with torch.inference_mode():
        image = _face_like(clip, "clip_l")
    text, before, seen, _ = _look(clip, image)
    assert seen["clip_l"].after > seen["clip_l"].before + 0.05
    assert not torch.equal(text.tokens.rows["clip_l"], before["clip_l"])
    length = text.tokens.rows["clip_l"].norm() / text.tokens.usual["clip_l"]
    assert 0.5 < length < 2


def test_the_reported_nearness_is_that_of_the_hosts_own_encoding(clip, tmp_path):
    with torch.inference_mode():
        image = _face_like(clip, "clip_l")
        wanted = [float(_projected(clip, "clip_l", form.format("man")) @ image)
                  for form in vision.TEMPLATES]
    _, _, seen, _ = _look(clip, image, steps=1)
    assert seen["clip_l"].before == pytest.approx(sum(wanted) / 4, abs=1e-5)


def test_an_encoder_of_another_width_or_space_keeps_the_initial_word_and_is_told(clip):
    with torch.inference_mode():
        image = _face_like(clip, "clip_l")
    text, before, seen, reasons = _look(clip, image, steps=2)
    assert set(seen) == {"clip_l"} and set(reasons) == {"clip_g"}
    assert torch.equal(text.tokens.rows["clip_g"], before["clip_g"])


def test_a_clip_without_its_text_projection_is_refused(clip):
    with torch.inference_mode():
        image = _face_like(clip, "clip_l")
        clip.cond_stage_model.clip_l.transformer.text_projection.weight.zero_()
    text = initial_text(clip, "ohwx", "man", 1, "")
    with pytest.raises(LikenessError, match="clip_l .* lacks its text projection"):
        vision.comparable(text, image, "man")


def test_no_clip_of_the_towers_width_names_both_widths(clip):
    text = initial_text(clip, "ohwx", "man", 1, "")
    with pytest.raises(LikenessError, match=r"clip_l has width \d+, the vision tower 99"):
        vision.comparable(text, torch.ones(99), "man")


def test_looking_leaves_the_clip_as_it_was(clip):
    with torch.inference_mode():
        image = _face_like(clip, "clip_l")
        before = text_models.stock_encode(clip, "a photo of a man")
    state = {name: value.clone() for name, value in clip.cond_stage_model.state_dict().items()}
    _look(clip, image, steps=3)
    with torch.inference_mode():
        assert torch.equal(text_models.stock_encode(clip, "a photo of a man"), before)
    for name, value in clip.cond_stage_model.state_dict().items():
        assert torch.equal(value, state[name]) and not value.requires_grad, name


def test_faces_are_cut_from_the_references_alone_and_averaged_as_unit_vectors(obama):
    towers = iter((torch.tensor([3.0, 0.0]), torch.tensor([0.0, 7.0]), torch.tensor([1.0, 0.0])))
    tower = _Tower(None)
    tower.encode_image = lambda image: (tower.pictures.append(image),
                                        {"image_embeds": next(towers)[None]})[1]
    found = vision.image_embedding(tower, obama.references)
    assert len(tower.pictures) == 3 and tower.pictures[0].shape == (1, 64, 64, 3)
    torch.testing.assert_close(found, torch.tensor([2.0, 1.0]) / 5 ** 0.5)


def test_a_tower_without_projection_and_a_photo_without_face_are_refused(obama):
    with pytest.raises(LikenessError, match="no projected embedding"):
        vision.image_embedding(_Tower(None), obama.references)
    faceless = dataclasses.replace(obama.references[0], face=None)
    with pytest.raises(LikenessError, match=f"`{faceless.name}` has no known face"):
        vision.image_embedding(_Tower(torch.ones(4)), [faceless])


def test_shares_are_the_softmax_of_the_most_similar():
    alike = {name: value for name, value in zip("abcdefg", (0.1, 0.5, 0.4, 0.3, 0.2, 0.45, 0.0),
                                               strict=True)}
    found = known_faces.weigh(alike)
    assert list(found) == ["b", "f", "c", "d", "e"] and sum(found.values()) == pytest.approx(1)
    assert found["b"] / found["c"] == pytest.approx(np.exp(0.1 / 0.05))


def test_a_mixture_is_the_weighted_mean_of_the_names_rows(clip):
    text = initial_text(clip, "ohwx", "man", 2, "")
    rows = known_faces.mix(text, {"tom": 0.75, "anna maria": 0.25})
    for encoder in text.tokens.encoders:
        tom, both = (encoder.rows(word_ids(clip, encoder, name)) for name in ("tom", "anna maria"))
        assert rows[encoder.name].shape == (2, encoder.width) and len(both) == 2
        torch.testing.assert_close(rows[encoder.name], 0.75 * tom.expand(2, -1) + 0.25 * both)


def _named(obama, names, verdict=Verdict.KEEP):
    folder = obama.references[0].file.parent
    photos = []
    for photo, name in zip(obama.photos, names, strict=False):
        (folder / name).write_bytes(photo.file.read_bytes())
        photos.append(dataclasses.replace(photo, file=folder / name, name=name, verdict=verdict))
    return PhotoSet(tuple(photos))


def test_file_names_are_peoples_names_and_numbers_do_not_count(obama):
    photos = _named(obama, ["Jane_Doe.png", "jane doe (2).png", "JANE-DOE_03.png", "tom.png"])
    assert {name: len(group) for name, group in known_faces.known_people(photos).items()} == {
        "jane doe": 3, "tom": 1}


@pytest.mark.parametrize(("names", "message"), [
    (["tom.png", "tom 2.png"], "holds 1 people"), (["12.png", "tom.png"], "`12.png` is not named")])
def test_photos_that_name_nobody_or_one_person_are_refused(obama, names, message):
    with pytest.raises(LikenessError, match=message):
        known_faces.known_people(_named(obama, names))


def test_the_recogniser_compares_references_with_each_known_person(obama):
    people = known_faces.known_people(_named(obama, ["tom.png", "anna.png"]))
    _, alike = known_faces.shares(obama, people, "dlib")
    middle = obama.embeddings["dlib"][:3].mean(0)
    assert alike["tom"] == pytest.approx(similarity(middle, obama.embeddings["dlib"][0]), abs=1e-4)


def test_a_start_is_told_by_its_rows_and_training_takes_it(clip):
    rows = {"clip_l": torch.randn(2, 64), "clip_g": torch.randn(2, 64)}
    widths = {encoder.name: encoder.width
              for encoder in initial_text(clip, "ohwx", "man", 1, "").tokens.encoders}
    rows = {name: torch.randn(2, width) for name, width in widths.items()}
    start = token_start(rows, {})
    again = token_start({name: value.clone() for name, value in reversed(rows.items())}, {})
    other = token_start({**rows, "clip_l": rows["clip_l"] + 1e-6}, {})
    assert start.key == again.key != other.key
    text = TextEncoders(clip, TextualInversionRecipe(tokens=TokenSettings(vectors=2)), "ohwx",
                        "man", start.rows, generator=torch.Generator())
    assert all(torch.equal(text.tokens.rows[name], rows[name]) for name in rows)


def test_other_numbers_of_vectors_are_refused_with_both(clip):
    start = token_start(initial_text(clip, "ohwx", "man", 3, "").tokens.rows, {})
    with pytest.raises(LikenessError, match=r"are \(3, \d+\) for clip_[gl], which needs \(2, \d+"):
        TextEncoders(clip, TextualInversionRecipe(tokens=TokenSettings(vectors=2)), "ohwx", "man",
                     start.rows, generator=torch.Generator())


def _execute(**inputs):
    with torch.inference_mode():
        return TokenStartNode.execute(**{"vectors": 2, "steps": 3, **inputs})


def test_the_node_gives_start_and_report_by_clip_vision(obama, clip):
    with torch.inference_mode():
        tower = _Tower(_face_like(clip, "clip_l"))
    start, report = _execute(subject=obama, clip=clip, method="clip vision",
                             clip_vision=tower).args
    report = json.loads(report)
    assert report["cosine"]["clip_l"]["after"] > report["cosine"]["clip_l"]["before"]
    assert "clip_g" in report["keep_the_initial_word"] and report["initial_word"] == "man"
    assert len(report["nearest_words"]["clip_l"]) == 2
    assert not any(rows.is_inference() for rows in start.rows.values())


def test_the_node_gives_start_and_report_by_known_faces(obama, clip):
    start, report = _execute(subject=obama, clip=clip, method="known faces",
                             known_people=_named(obama, ["tom.png", "anna.png"])).args
    assert sum(json.loads(report)["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert {rows.shape[0] for rows in start.rows.values()} == {2}


@pytest.mark.parametrize(("method", "message"), [
    ("clip vision", "connect CLIP_VISION"), ("known faces", "connect photos of people"),
    ("guess", "`method` must be")])
def test_what_is_not_connected_is_named(obama, clip, method, message):
    with pytest.raises(LikenessError, match=message):
        _execute(subject=obama, clip=clip, method=method)


def test_progress_is_told_every_step(clip):
    with torch.inference_mode():
        image = _face_like(clip, "clip_l")
    text, done = initial_text(clip, "ohwx", "man", 1, ""), []
    vision.look(text, image, ["clip_l"], 3, done.append)
    assert done == [1, 2, 3]


def test_rows_for_none_of_the_encoders_are_refused(clip):
    with pytest.raises(LikenessError, match="for t5xxl, this CLIP has clip_g, clip_l"):
        TextEncoders(clip, TextualInversionRecipe(tokens=TokenSettings(vectors=2)), "ohwx", "man",
                     {"t5xxl": torch.zeros(2, 64)}, generator=torch.Generator())
