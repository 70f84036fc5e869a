"""Nodes that say how a headshot should look."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..schema import StyleType, SubjectType, schema
from ..sockets import Subject
from .catalog import style as find_style
from .catalog import styles
from .prompt import negative_prompt, positive_prompt


class LikenessStyle(io.ComfyNode):
    """A headshot style with the subject's words in place."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessStyle", feature="style", display_name="Likeness Headshot Style",
            description="Takes a subject and a headshot style; gives the positive and negative "
                        "prompt with the trigger in place, and the style's size and control "
                        "strengths.",
            inputs=[
                SubjectType.Input("subject", tooltip="The person: its trigger and class noun are "
                                                     "put into the prompt."),
                io.Combo.Input("style", options=list(styles()), default="corporate",
                               tooltip="Light, attire, lens, background, framing and control "
                                       "strengths of the picture."),
                io.String.Input("prefix", default="", multiline=True,
                                tooltip="Words put before the style's own, where they weigh most; "
                                        "leave the trigger out."),
                io.String.Input("suffix", default="", multiline=True,
                                tooltip="Words put after the style's own, such as hair, glasses or "
                                        "place; leave the trigger out."),
                io.String.Input("avoid", default="", multiline=True,
                                tooltip="Words added to the style's negative prompt."),
            ],
            outputs=[
                StyleType.Output(display_name="style",
                                 tooltip="The style, for Apply Control Stack: it scales the "
                                         "strength of each kind of control."),
                io.String.Output(display_name="positive",
                                 tooltip="Prompt with the trigger exactly once; encode it with the "
                                         "model's CLIP."),
                io.String.Output(display_name="negative",
                                 tooltip="What to keep out of the picture; encode it likewise."),
                io.Int.Output(display_name="width",
                              tooltip="Width in pixels that suits the style on SDXL, SD3 and FLUX; "
                                      "use a smaller size on SD1.5."),
                io.Int.Output(display_name="height",
                              tooltip="Height in pixels that suits the style on SDXL, SD3 and "
                                      "FLUX; use a smaller size on SD1.5."),
            ],
        )

    @classmethod
    def execute(cls, subject: Subject, style: str, prefix: str = "", suffix: str = "",
                avoid: str = "") -> io.NodeOutput:
        chosen = find_style(style)
        positive = positive_prompt(chosen, subject, prefix, suffix)
        negative = negative_prompt(chosen, subject, avoid)
        return io.NodeOutput(chosen, positive, negative, chosen.width, chosen.height,
                             ui=ui.PreviewText(f"{positive}\n\nNot: {negative}"))


NODES: list[type[io.ComfyNode]] = [LikenessStyle]
