"""The node that makes pictures of the subject's class for prior preservation."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ... import made_files, runtime
from ...cache_limit import hold, limit_cache
from ...errors import LikenessError
from ...incoming import require_pictures
from ...media.images import read_photo, to_image, to_uint8
from ...schema import SubjectType, TrainingSetType, schema, seed
from ...sockets import Subject
from ...tensors import fingerprint, model_key, text_fingerprint
from . import class_photos
from . import sampling as pictures
from .class_judge import JUDGE, judge_pictures, judged_report, kept
from .class_photos import DEFAULT_PROMPT, ClassPhoto, ClassPhotoSettings, Studio

_MEGABYTE = 2 ** 20


class ClassPhotosNode(io.ComfyNode):
    """Makes class photos with the model itself, or of the user's own pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        defaults = pictures.Sampling()
        return schema(
            "LikenessClassPhotos", feature="training", display_name="Likeness Class Photos",
            is_output_node=True,
            description="Makes pictures of other people of the subject's class (a photo of a man) "
                        "with the MODEL as it is, for prior preservation: training on them beside "
                        "the subject's photos keeps the class word from turning into the subject. "
                        "Each picture is kept on disk and made once; a cancelled run goes on.",
            inputs=[
                io.Model.Input("model", tooltip="The model that will be trained, before any "
                                                "training: what it shows now is what is kept."),
                io.Clip.Input("clip", tooltip="The model's text encoder."),
                io.Vae.Input("vae", tooltip="The model's VAE; it shows the pictures, and encodes "
                                            "own ones."),
                io.String.Input("class_noun", default="person",
                                tooltip="What the subject is: person, man, woman. A connected "
                                        "subject's own word takes its place."),
                io.String.Input("prompt", default=DEFAULT_PROMPT, multiline=True,
                                tooltip="One prompt per line, used in turn; {class} is the class "
                                        "noun. Several lines keep more of what the class can "
                                        "look like. Leave the trigger out."),
                io.String.Input("negative", default="", multiline=True,
                                tooltip="What the pictures should not show. Empty is closest to "
                                        "what the model means by the class."),
                io.Int.Input("count", default=100, min=1, max=10000,
                             tooltip="How many pictures. 100 to 300 are usual; about ten per "
                                     "photo of the subject. A higher number later adds the "
                                     "missing ones only."),
                seed("Noise of the first picture; each further one takes the next number."),
                io.Int.Input("width", default=1024, min=16, max=8192, step=8,
                             tooltip="Pixels. Take the size that the photos train at: 512 for "
                                     "SD1.5, 1024 for SDXL, SD3 and FLUX."),
                io.Int.Input("height", default=1024, min=16, max=8192, step=8,
                             tooltip="Pixels; as the width."),
                *sampling_inputs(defaults),
                SubjectType.Input("subject", optional=True,
                                  tooltip="Gives the class noun, and the folder beside the "
                                          "subject's other files. Without it the folder is named "
                                          "after the class."),
                io.Image.Input("own_pictures", optional=True,
                               tooltip="Your own pictures of other people of the class, taken in "
                                       "place of generated ones. They are cut to width and height "
                                       "round their middle and described by the first prompt."),
                io.Int.Input("cache_limit_mb", default=4096, min=0, max=1048576, step=256,
                             optional=True,
                             tooltip="Megabytes that the class photos in this folder may take; the "
                                     "longest unused go first, those of sets that ComfyUI still "
                                     "holds never. Raise it when you switch between models or "
                                     "prompts often."),
                io.Combo.Input("judge_photos", options=list(JUDGE), default=JUDGE[0],
                               optional=True,
                               tooltip="Every picture is judged as photos are: no face, several "
                                       "faces, blurred ..., or the subject's own face. Report "
                                       "only says so, leave out also trains without the rejected "
                                       "ones, off saves the time (for classes without a human "
                                       "face)."),
            ],
            outputs=[
                TrainingSetType.Output(display_name="class_set",
                                       tooltip="Latents and text encodings of the class photos; "
                                               "goes into Train beside the training set."),
                io.Image.Output(display_name="pictures",
                                tooltip="The pictures, at most 512 pixels a side; of more than "
                                        "64 an even choice. The folder has all at full size."),
                io.String.Output(display_name="report", tooltip="JSON: folder, how many were made "
                                                                "and reused, prompt and seed of "
                                                                "each, size of the folder."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> str:
        return made_files.losses(runtime.running_node())

    @classmethod
    def execute(cls, model, clip, vae, class_noun: str, prompt: str, negative: str, count: int,
                seed: int, width: int, height: int, steps: int, cfg: float, sampler: str,
                scheduler: str, guidance: float, subject: Subject | None = None,
                own_pictures: torch.Tensor | None = None,
                cache_limit_mb: int = 4096, judge_photos: str = JUDGE[0]) -> io.NodeOutput:
        if judge_photos not in JUDGE:
            raise LikenessError(f"`judge_photos` must be one of {', '.join(JUDGE)}, got "
                                f"`{judge_photos}`.")
        noun = subject.class_noun if subject is not None else class_noun.strip()
        settings = ClassPhotoSettings(
            noun, class_photos.prompt_lines(prompt), negative.strip(), count, seed, width, height,
            pictures.Sampling(steps=steps, cfg=cfg, sampler=sampler, scheduler=scheduler,
                              guidance=guidance))
        name = subject.name if subject is not None else noun
        folder = _folder(subject.folder_name if subject is not None else noun)
        studio = _studio(model, clip, vae, settings)
        if own_pictures is None:
            photos = _followed(class_photos.generate(settings, studio, folder), count)
        else:
            images = (to_uint8(image) for image in require_pictures(own_pictures,
                                                                    "own_pictures"))
            photos = _followed(class_photos.encode(images, settings, studio, folder),
                               len(own_pictures))
        used, verdicts = _judged(photos, judge_photos, subject)
        made = class_photos.class_set(used, studio, folder, name)
        runtime.unload(clip.patcher)  # everything it has to say is on disk now
        files = class_photos.files_of(photos, made)
        hold(made, files)
        made_files.remember(runtime.running_node(), files)
        cache = limit_cache(folder, files, cache_limit_mb * _MEGABYTE)
        told = class_photos.report(photos, settings, folder, own_pictures is not None)
        text = json.dumps({**told, "cache": dataclasses.asdict(cache), "judged": verdicts},
                          indent=2)
        shown = to_image(np.stack(_thumbnails(used)))
        preview = ui.PreviewImage(shown, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(made, shown, text, ui=preview)


def sampling_inputs(defaults: pictures.Sampling) -> list:
    """The inputs that say how pictures are sampled, in the order of core's KSampler."""
    return [
        io.Int.Input("steps", default=defaults.steps, min=1, max=10000,
                     tooltip="Sampling steps of each picture. 20 to 50; 4 to 8 for turbo models."),
        io.Float.Input("cfg", default=defaults.cfg, min=0.0, max=100.0, step=0.1,
                       tooltip="Classifier-free guidance: how hard pictures follow the prompt. 7 "
                               "for SD1.5, 5 for SDXL and SD3, 1 for FLUX and turbo models."),
        io.Combo.Input("sampler", options=pictures.sampler_names(), default=defaults.sampler,
                       tooltip="The algorithm that takes the steps, as in KSampler."),
        io.Combo.Input("scheduler", options=pictures.scheduler_names(),
                       default=defaults.scheduler,
                       tooltip="How noise falls over the steps, as in KSampler; simple for FLUX."),
        io.Float.Input("guidance", default=defaults.guidance, min=0.0, max=100.0, step=0.1,
                       tooltip="What guidance-distilled models such as FLUX.1-dev are told, as in "
                               "Flux Guidance; other models ignore it."),
    ]


def _folder(name: str) -> Path:
    safe = re.sub(r"[^\w.-]+", "_", name)
    return runtime.contained(runtime.output_directory() / "likeness", safe) / "class_photos"


def _studio(model, clip, vae, settings: ClassPhotoSettings) -> Studio:
    if clip is None:
        raise LikenessError("This checkpoint has no text encoder; connect a CLIP loader to Class "
                            "Photos.")
    size = pictures.latent_size(vae, settings.width, settings.height)

    def draw(positive, negative, number: int) -> torch.Tensor:
        return pictures.sample(model, positive, negative, size, number, settings.sampling)

    return Studio(draw, lambda latent: pictures.decode(vae, latent),
                  lambda image: pictures.encode_image(vae, image),
                  lambda text: pictures.encode_text(clip, text),
                  lambda text: pictures.encode_caption(clip, text),
                  model_key(model), fingerprint(vae.first_stage_model.state_dict()),
                  text_fingerprint(clip))


def _judged(photos: list[ClassPhoto], way: str,
            subject: Subject | None) -> tuple[list[ClassPhoto], dict | None]:
    """The photos that train, and the report on all of them."""
    if way == "off":
        return photos, None
    judged = judge_pictures(photos, subject, runtime.progress_callback(len(photos)))
    leave_out = way == "leave out"
    return kept(judged) if leave_out else photos, judged_report(judged, leave_out)


def _thumbnails(photos: list[ClassPhoto]) -> list[np.ndarray]:
    """The pictures that are shown; of many photos the chosen ones may all have been left out."""
    held = [photo.thumbnail for photo in photos if photo.thumbnail is not None]
    return held or [class_photos.thumbnail(read_photo(photos[0].picture))]


def _followed(photos: Iterator[ClassPhoto], total: int) -> list[ClassPhoto]:
    """Collect photos and show each as it comes; a cancel ends it between two.

    Thumbnails stay of those alone that are shown in the end: the others would fill the memory.
    """
    progress, done, shown = runtime.Progress(total), [], class_photos.shown_places(total)
    for place, photo in enumerate(photos):
        done.append(photo if place in shown else dataclasses.replace(photo, thumbnail=None))
        progress.update(len(done), Image.fromarray(photo.thumbnail))
    return done


NODES: list[type[io.ComfyNode]] = [ClassPhotosNode]
