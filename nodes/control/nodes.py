"""Nodes that draw control maps and hang control networks on a conditioning."""

from __future__ import annotations

import json
from typing import Any

import torch
from comfy_api.latest import io, ui

from .. import runtime
from ..errors import LikenessError
from ..incoming import require_pictures
from ..media.images import to_image, to_uint8
from ..schema import ControlStackType, StyleType, SubjectType, schema
from ..sockets import Style, Subject
from .families import AUTO, KINDS
from .framing import FITS
from .maps import (
    POLICIES,
    BodyOptions,
    FaceOptions,
    Maps,
    body_maps,
    face_maps,
    template_body_map,
    template_face_map,
)
from .stack import ControlStack, apply_stack, control_entry, describe
from .templates import templates

FROM_IMAGE = "from image"
DRAWINGS = ("openpose", "xinsir")


def _template_input() -> io.Combo.Input:
    return io.Combo.Input(
        "template", options=[FROM_IMAGE, *templates()], default=FROM_IMAGE,
        tooltip="`from image` takes the pose of the picture; the others are built-in headshot "
                "poses that need a subject and no picture. Left and right are sides of the "
                "picture.")


def _size_inputs() -> list[io.Int.Input]:
    return [
        io.Int.Input("width", default=1024, min=64, max=8192, step=8,
                     tooltip="Width of the map in pixels; the width that will be generated."),
        io.Int.Input("height", default=1024, min=64, max=8192, step=8,
                     tooltip="Height of the map in pixels; the height that will be generated."),
        io.Combo.Input("fit", options=list(FITS), default=FITS[0],
                       tooltip="For pictures of another shape than the map: crop fills the map and "
                               "cuts what stands out, letterbox shows the whole picture. "
                               "Templates always fit whole."),
    ]


def _policy_input(what: str) -> io.Combo.Input:
    return io.Combo.Input("if_none", options=list(POLICIES), default=POLICIES[0],
                          tooltip=f"A picture without a {what}: error stops the run, skip leaves "
                                  "the picture out of the batch and says so in the report. A blank "
                                  "map is never made.")


def _map_outputs(what: str) -> list[Any]:
    return [
        io.Image.Output(display_name="map",
                        tooltip="One map for each picture, for a Control Stack."),
        io.Int.Output(display_name="count", tooltip=f"How many {what} were drawn in all."),
        io.String.Output(display_name="report",
                         tooltip="JSON: what was drawn for each picture, and what was skipped."),
    ]


def _pictures(image: torch.Tensor | None) -> list[Any]:
    if image is None:
        raise LikenessError("`from image` needs a picture; connect one, or choose a template.")
    return [to_uint8(item) for item in require_pictures(image, "image")]


def _map_result(maps: Maps, cls: type[io.ComfyNode]) -> io.NodeOutput:
    image, report = to_image(maps.pixels), json.dumps(maps.report, indent=1)
    shown = {**ui.PreviewImage(image, cls=cls).as_dict(), **ui.PreviewText(report).as_dict()}
    return io.NodeOutput(image, maps.count, report, ui=shown)


class LikenessFaceMeshMap(io.ComfyNode):
    """MediaPipe face map for CrucibleAI's face ControlNets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessFaceMeshMap", feature="control", display_name="Likeness Face Mesh Map",
            description="Takes a picture or a template; gives the coloured face lines that "
                        "CrucibleAI's MediaPipe face ControlNets (SD1.5, SD2.1) were trained on. "
                        "With a subject, the lines are the subject's own face in that pose, so the "
                        "picture's skull is not imposed.",
            inputs=[
                _template_input(),
                *_size_inputs(),
                io.Int.Input("faces", default=1, min=1, max=8,
                             tooltip="How many faces of a picture are drawn at most, the largest "
                                     "first. With a subject it is the largest alone."),
                io.Int.Input("smallest_face", default=64, min=16, max=1024,
                             tooltip="Pixels on the map below which a face is not drawn; the "
                                     "ControlNets saw none below 64."),
                _policy_input("face"),
                io.Image.Input("image", optional=True,
                               tooltip="Pictures whose pose is taken; needed for `from image`, "
                                       "unused with a template."),
                SubjectType.Input("subject", optional=True,
                                  tooltip="Draw this person's mean face, mean expression included, "
                                          "in the picture's or template's pose. Leave open to draw "
                                          "the picture's own faces."),
            ],
            outputs=_map_outputs("faces"),
        )

    @classmethod
    def execute(cls, template: str, width: int, height: int, fit: str, faces: int,
                smallest_face: int, if_none: str, image: torch.Tensor | None = None,
                subject: Subject | None = None) -> io.NodeOutput:
        options = FaceOptions(faces, smallest_face)
        if template != FROM_IMAGE:
            return _map_result(template_face_map(template, subject, (width, height), options), cls)
        pictures = _pictures(image)
        done = runtime.progress_callback(len(pictures))
        return _map_result(face_maps(pictures, (width, height), fit, options, subject, if_none,
                                     done), cls)


class LikenessPoseMap(io.ComfyNode):
    """OpenPose body map with 18 joints."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessPoseMap", feature="control", display_name="Likeness Pose Map",
            description="Takes a picture or a template; gives the OpenPose body drawing (18 "
                        "joints, no hands or face points) that pose ControlNets were trained on.",
            inputs=[
                _template_input(),
                *_size_inputs(),
                io.Int.Input("people", default=1, min=1, max=4,
                             tooltip="How many people of a picture are drawn at most, the largest "
                                     "first."),
                io.Float.Input("confidence", default=0.5, min=0.0, max=1.0, step=0.05,
                               tooltip="Joints of a picture that are surer than this are drawn; "
                                       "lower it when visible arms are missing, raise it when "
                                       "hidden ones are guessed."),
                io.Combo.Input("drawing", options=list(DRAWINGS), default=DRAWINGS[0],
                               tooltip="openpose: limbs 8 pixels wide at every size, for most "
                                       "ControlNets. xinsir: wider on maps from 500 pixels up, for "
                                       "xinsir's SDXL ones."),
                _policy_input("body"),
                io.Image.Input("image", optional=True,
                               tooltip="Pictures whose pose is taken; needed for `from image`, "
                                       "unused with a template."),
                SubjectType.Input("subject", optional=True,
                                  tooltip="Needed by templates: places eyes and nose as in the "
                                          "subject's Face Mesh Map of the same template."),
            ],
            outputs=_map_outputs("people"),
        )

    @classmethod
    def execute(cls, template: str, width: int, height: int, fit: str, people: int,
                confidence: float, drawing: str, if_none: str, image: torch.Tensor | None = None,
                subject: Subject | None = None) -> io.NodeOutput:
        if drawing not in DRAWINGS:
            raise LikenessError(f"`drawing` must be one of {', '.join(DRAWINGS)}, got `{drawing}`.")
        options = BodyOptions(people, confidence, drawing == "xinsir")
        if template != FROM_IMAGE:
            return _map_result(template_body_map(template, subject, (width, height), options), cls)
        pictures = _pictures(image)
        done = runtime.progress_callback(len(pictures))
        return _map_result(body_maps(pictures, (width, height), fit, options, if_none, done), cls)


class LikenessControlStack(io.ComfyNode):
    """One more control network on a stack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessControlStack", feature="control", display_name="Likeness Control Stack",
            description="Adds a ControlNet with its image to a stack. The network's family is read "
                        "from its weights, and a union network is told the kind of image by the "
                        "number that its own family uses.",
            inputs=[
                io.ControlNet.Input("control_net", tooltip="A loaded ControlNet, union ControlNet, "
                                                           "Control-LoRA or T2I-Adapter."),
                io.Image.Input("image", tooltip="The control image, such as a map; resized to the "
                                                "generated size, cut round its centre."),
                io.Combo.Input("kind", options=list(KINDS), default=AUTO,
                               tooltip="What the image shows. Union networks with mode numbers "
                                       "need it; for others it only picks the style's "
                                       "strength. auto sends nothing and is for networks with one "
                                       "purpose."),
                io.Float.Input("strength", default=0.8, min=0.0, max=10.0, step=0.01,
                               tooltip="How hard the image is followed: 1 as trained, 0 not at "
                                       "all. FLUX networks want 0.3 to 0.8."),
                io.Float.Input("start", default=0.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Share of the sampling after which this control begins; "
                                       "raise it to leave the composition free."),
                io.Float.Input("end", default=1.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Share of the sampling after which this control stops; "
                                       "lower it to leave the details to the model and LoRA."),
                ControlStackType.Input("stack", optional=True,
                                       tooltip="The controls so far; leave open for the first."),
            ],
            outputs=[
                ControlStackType.Output(display_name="stack",
                                        tooltip="The stack with this control on top."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: family, kind, mode number, strength and times of "
                                         "every control."),
            ],
        )

    @classmethod
    def execute(cls, control_net: Any, image: torch.Tensor, kind: str, strength: float,
                start: float, end: float, stack: ControlStack = ()) -> io.NodeOutput:
        require_pictures(image, "image")
        grown = (*stack, control_entry(control_net, image, kind, strength, start, end))
        report = json.dumps([describe(entry) for entry in grown], indent=1)
        return io.NodeOutput(grown, report, ui=ui.PreviewText(report))


class LikenessApplyControlStack(io.ComfyNode):
    """All controls of a stack on both conditionings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessApplyControlStack", feature="control",
            display_name="Likeness Apply Control Stack",
            description="Hangs every control of a stack on the positive and negative conditioning, "
                        "with the same result as core's Apply ControlNet nodes in a chain.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input("negative", tooltip="What it should not show."),
                ControlStackType.Input("stack", tooltip="From Likeness Control Stack."),
                io.Vae.Input("vae", optional=True,
                             tooltip="The checkpoint's VAE; needed by FLUX, SD3 and Qwen networks, "
                                     "unused by others."),
                StyleType.Input("style", optional=True,
                                tooltip="Multiplies each control's strength by the style's figure "
                                        "for its kind; kinds that the style does not name, and "
                                        "auto, stay as they are."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive",
                                       tooltip="The positive conditioning under control."),
                io.Conditioning.Output(display_name="negative",
                                       tooltip="The negative conditioning under control; use "
                                               "it together with the positive."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: the controls with the strengths that apply."),
            ],
        )

    @classmethod
    def execute(cls, positive: Any, negative: Any, stack: ControlStack, vae: Any = None,
                style: Style | None = None) -> io.NodeOutput:
        scales = style.control if style else None
        report = json.dumps([describe(entry, scales) for entry in stack], indent=1)
        return io.NodeOutput(*apply_stack(positive, negative, stack, vae, scales), report,
                             ui=ui.PreviewText(report))


NODES: list[type[io.ComfyNode]] = [LikenessFaceMeshMap, LikenessPoseMap, LikenessControlStack,
                                   LikenessApplyControlStack]
