"""The node that writes a photo set to disk."""

from __future__ import annotations

import json

from comfy_api.latest import io, ui

from ... import runtime
from ...schema import PhotoSetType, schema
from ..prepare.crop import FRAMINGS
from ..prepare.masks import MASKS
from .reading import read_saved
from .save import EXISTING, PICTURES, SaveSettings, save


class LikenessSavePhotos(io.ComfyNode):
    """Save photos with all that is known of them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessSavePhotos", feature="dataset", display_name="Likeness Save Photos",
            description="Takes curated photos and writes them to output/likeness/<name> as kohya's "
                        "tools read them: the kept pictures with captions, masks, and a "
                        "likeness.json with verdicts, faces and measures. Load Photos reads it "
                        "back as it was.",
            is_output_node=True,
            inputs=[
                PhotoSetType.Input("photos", tooltip="The judged photos from Curate Photos or "
                                                     "Caption Photos."),
                io.String.Input("name", default="photos",
                                tooltip="The folder below output/likeness. A folder of this name "
                                        "that holds something else is never written into."),
                io.String.Input("trigger", default="ohwx",
                                tooltip="The word that means this person; part of the folder's "
                                        "name, which kohya takes as caption where none is."),
                io.String.Input("class_noun", default="person",
                                tooltip="What the subject is: person, man, woman; part of the "
                                        "folder's name."),
                io.Int.Input("repeats", default=10, min=1, max=10000,
                             tooltip="How often kohya shows each picture in an epoch; the number "
                                     "in front of the folder's name. Likeness itself does not use "
                                     "it."),
                io.Combo.Input("pictures", options=list(PICTURES), default=PICTURES[0],
                               tooltip="Copies of the original files (as upright PNG in sRGB where "
                                       "kohya's tools would see another picture), or the crops "
                                       "as PNG for tools that cannot crop round a face."),
                io.Combo.Input("framing", options=list(FRAMINGS), default="head and shoulders",
                               tooltip="How much round the face crops keep. Unused for original "
                                       "files."),
                io.Int.Input("resolution", default=1024, min=64, max=4096, step=64,
                             tooltip="Pixels: the square root of a crop's largest area. Unused "
                                     "for original files."),
                io.Boolean.Input("level_eyes", default=False,
                                 tooltip="Turns crops so that the eyes are level, with the photo's "
                                         "own pixels alone. Unused for original files."),
                io.Combo.Input("masks", options=list(MASKS), default="face oval",
                               tooltip="The masks written to the folder masks, for kohya's masked "
                                       "loss: face, face with hair and ears, or none. Masks that "
                                       "photos carry are always written."),
                io.Boolean.Input("include_unsure", default=False,
                                 tooltip="Put photos called unsure among those that train; "
                                         "otherwise they go to left_out with the rejected ones."),
                io.Combo.Input("existing", options=list(EXISTING), default=EXISTING[0],
                               tooltip="When the folder exists and holds another set: write to "
                                       "the next free number (photos_2), or refuse. The very same "
                                       "set is not written twice."),
            ],
            outputs=[
                PhotoSetType.Output(display_name="photos",
                                    tooltip="The set as Load Photos will read it; its files are "
                                            "the saved ones."),
                io.String.Output(display_name="folder",
                                 tooltip="Where it lies, as Load Photos takes it in `folder`."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: folder, whether it is new, and how many photos "
                                         "train and were left out."),
            ])

    @classmethod
    def execute(cls, photos, name, trigger, class_noun, repeats, pictures, framing, resolution,
                level_eyes, masks, include_unsure, existing):
        settings = SaveSettings(name, trigger, class_noun, repeats, pictures, framing, resolution,
                                level_eyes, masks, include_unsure, existing)
        base = runtime.output_directory() / "likeness"
        place, new = save(photos, settings, base, runtime.progress_callback(len(photos.photos)))
        label = f"output/likeness/{place.name}"
        loaded = read_saved(place, label, lambda done: None).photos
        trains = sum(photo.file.parent.name == settings.folder for photo in loaded.photos)
        text = json.dumps({"folder": str(place), "load_as": label, "new": new,
                           "training_folder": str(place / settings.folder), "trains": trains,
                           "left_out": len(loaded.photos) - trains}, indent=1)
        return io.NodeOutput(loaded, label, text, ui=ui.PreviewText(text))


NODES: list[type[io.ComfyNode]] = [LikenessSavePhotos]
