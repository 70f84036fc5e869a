"""The base model, and one person prepared for it: what all contenders of the bench get."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import comfy.sd
import torch
from likeness.nodes.dataset.files.load import read_photos
from likeness.nodes.dataset.prepare.nodes import _encoders
from likeness.nodes.dataset.prepare.prepare import PrepareSettings, prepare
from likeness.nodes.dataset.subject.subject import SubjectSettings, make_subject
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo
from likeness.nodes.sockets import Photo, PhotoSet, Subject, TrainingSet, Verdict
from likeness.nodes.tensors import read_conditioning, read_latent
from likeness.nodes.training.pictures.sampling import Sampling
from likeness.nodes.training.watch.monitor import Look, Monitor, judge_for, look
from likeness.nodes.training.watch.stopping import StopRule
from likeness_people import Person

from launcher.demonstrator.install import FILE, SIDE
from launcher.tiny.architectures import register

TRIGGER = "ohwx"
PICTURES = 16  # of each look
PROMPTS = ("photo of {subject}, close-up", "photo of {subject}, smiling, dark suit",
           "photo of {subject}, blue background", "headshot of {subject}, neutral expression")
SAMPLING = Sampling(steps=14, cfg=2.5, sampler="dpmpp_2m", scheduler="karras")


class Base:
    """The small base model, loaded as CheckpointLoaderSimple loads it."""

    def __init__(self, file: Path = FILE) -> None:
        register()
        self.file = file
        self.model, self.clip, self.vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(file), output_vae=True, output_clip=True)

    def fresh_model(self) -> Any:
        """A MODEL with modules of its own."""
        return comfy.sd.load_checkpoint_guess_config(
            str(self.file), output_vae=False, output_clip=False)[0]


@dataclass(frozen=True, eq=False)
class World:
    """One person's photos, prepared for the base."""

    base: Base
    person: Person
    subject: Subject
    training_set: TrainingSet
    folder: Path

    @cached_property
    def judge(self) -> Any:
        """Both recognisers, against the photos that never train."""
        return judge_for(self.subject)

    @cached_property
    def latents(self) -> torch.Tensor:
        """Latents (N, C, h, w) of the training photos, at the VAE's own scale."""
        return torch.stack([read_latent(item.latent_file)[0] for item in self.training_set.items])

    @cached_property
    def texts(self) -> torch.Tensor:
        """Encodings (N, T, D) of their captions."""
        files = self.training_set.conditionings
        return torch.cat([read_conditioning(files[item.conditioning_key])[0][0]
                          for item in self.training_set.items])

    def look(self, model: Any, step: int, clip: Any = None) -> Look:
        """Draw headshots of fixed seeds with a MODEL and judge them."""
        return look(model, clip or self.base.clip, self.base.vae, self.subject, monitor(), step,
                    self.judge, (SIDE, SIDE))


def monitor(every: int = 0) -> Monitor:
    """What a look is, the same for everybody."""
    return Monitor(every=every, prompts=PROMPTS, pictures=PICTURES, seed=1, sampling=SAMPLING,
                   width=SIDE, height=SIDE, rule=StopRule(patience=0))


def world(base: Base, person: Person, folder: Path) -> World:
    """Prepare a person's photos: every one of them is used, whatever a curator would say."""
    files = [*person.trained, *person.judged_by]
    names = [f"{number:02}_{file.name}" for number, file in enumerate(files)]
    photos = [_with_face(photo) for photo in read_photos(
        files, names, person.name, lambda done: None).photos]
    count = len(person.trained)
    settings = SubjectSettings(person.name, TRIGGER, person.noun, 0, False)
    whole = make_subject(PhotoSet(tuple(photos)), settings, lambda done: None)
    subject = dataclasses.replace(whole, references=tuple(photos[:count]),
                                  held_out=tuple(photos[count:]))
    training_set, _ = prepare(
        subject, PrepareSettings(SIDE, "head", "photo of {subject}, {framing}, {expression}"),
        _encoders(base.vae, base.clip), folder / person.name.replace(" ", "_"),
        lambda done: None)
    return World(base, person, subject, training_set, folder)


def _with_face(photo: Photo) -> Photo:
    face = find_face(read_photo(photo.file))
    return dataclasses.replace(photo, face=face, verdict=Verdict.KEEP)
