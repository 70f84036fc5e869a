"""Published settings for faces: a preset per architecture and purpose, and each number's source.

Where a number has no published face setting behind it, or departs from the one it is made of, its
source says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ...errors import LikenessError
from .adapters import LoRARecipe, QLoRARecipe
from .base import Recipe, TokenSettings
from .fields import BaseWeights, Optimizer, Schedule, Target, Timesteps
from .whole import DreamBoothRecipe, TextualInversionRecipe

TYPICAL_PHOTOS = 12  # for the steps of a run whose photos are not known


@dataclass(frozen=True)
class Source:
    """Where a number comes from."""

    title: str
    url: str = ""  # empty: the pack's own choice

    def adapted(self, how: str) -> Source:
        """The same place, for a number that was made from what stands there."""
        return Source(f"adapted from {self.title}: {how}", self.url)


_GITHUB = "https://github.com/"
FACECHAIN = Source("FaceChain v3, train_lora", f"{_GITHUB}modelscope/facechain/tree/v3.0.0")
EDEN_SD15 = Source("Eden sd-lora-trainer, face settings for SD1.5",
                   f"{_GITHUB}edenartlab/sd-lora-trainer/blob/main/train_configs/"
                   "training_args_face_sd15.json")
COG = Source("Replicate cog-sdxl", f"{_GITHUB}replicate/cog-sdxl")
HF_PIVOTAL = Source("LoRA training scripts of the world, unite! (Hugging Face blog)",
                    "https://huggingface.co/blog/sdxl_lora_advanced_script")
HF_DREAMBOOTH = Source("Training Stable Diffusion with Dreambooth (Hugging Face blog)",
                       "https://huggingface.co/blog/dreambooth")
HF_FLUX_QLORA = Source("Fine-Tuning FLUX.1-dev on Consumer Hardware (Hugging Face blog)",
                       "https://huggingface.co/blog/flux-qlora")
DIFFUSERS_DREAMBOOTH = Source(
    "diffusers, DreamBooth example",
    f"{_GITHUB}huggingface/diffusers/blob/main/examples/dreambooth/README.md")
DIFFUSERS_INVERSION = Source(
    "diffusers, textual inversion example",
    f"{_GITHUB}huggingface/diffusers/blob/main/examples/textual_inversion/README.md")
STUDIO = Source("LoRA Dataset Studio, settings for a person",
                f"{_GITHUB}perfectgf/lora-dataset-studio")
AI_TOOLKIT = Source("ai-toolkit, FLUX.1 LoRA example", f"{_GITHUB}ostris/ai-toolkit")
KOHYA_FLUX = Source("sd-scripts, advice for FLUX.1",
                    f"{_GITHUB}kohya-ss/sd-scripts/blob/main/docs/flux_train_network.md")
KOHYA_FP8 = Source("sd-scripts, fp8 base weights for SDXL",
                   f"{_GITHUB}kohya-ss/sd-scripts/pull/1057")
ONE_TRAINER = Source("OneTrainer, LoRA presets", f"{_GITHUB}Nerogar/OneTrainer")
MIN_SNR = Source("Min-SNR weighting, the paper's gamma", "https://arxiv.org/abs/2303.09556")
SD3_PAPER = Source("Stable Diffusion 3, the paper", "https://arxiv.org/abs/2403.03206")
QLORA_PAPER = Source("QLoRA, the paper", "https://arxiv.org/abs/2305.14314")
DREAMBOOTH_PAPER = Source("DreamBooth, the paper", "https://arxiv.org/abs/2208.12242")
CUSTOM_DIFFUSION = Source("Custom Diffusion, which trains cross-attention alone",
                          "https://arxiv.org/abs/2212.04488")
OWN = Source("this pack's default")
SMALL = Source("this pack's choice, for small cards")
LIKE_FLUX = Source("FLUX.1's published face settings; none are known for this architecture",
                   STUDIO.url)
LIKE_SD15 = Source("SD1.5's published face settings; none are known for this architecture",
                   HF_DREAMBOOTH.url)
_OF_OPTIONS, _OF_STEPS = Source("the connected options"), Source("the node's own `steps`")


@dataclass(frozen=True)
class Setting:
    """One number and where it comes from."""

    value: Any
    source: Source


@dataclass(frozen=True)
class Pace:
    """Steps by the number of photos: `per_photo` times photos, within limits."""

    per_photo: int
    least: int
    most: int
    source: Source

    def steps(self, photos: int) -> int:
        """Optimiser steps for a number of photos."""
        return min(max(self.per_photo * photos, self.least), self.most)

    def formula(self, photos: int) -> str:
        """How the steps came about, for a reader."""
        return (f"{self.per_photo} x {photos} photos, at least {self.least} and at most "
                f"{self.most}")


Settings = Mapping[str, Setting]


@dataclass(frozen=True)
class Preset:
    """Settings that belong together: an architecture, a technique and its numbers."""

    id: str
    title: str
    architecture: str  # a key of ARCHITECTURES
    recipe: type[Recipe]
    pace: Pace
    settings: Settings
    tokens: Settings | None = None  # of the new word, where the preset teaches one
    advice: Settings = field(default_factory=lambda: MappingProxyType({}))  # for other nodes
    published: bool = True  # for faces on this architecture

    def make(self, photos: int, steps: int = 0) -> Recipe:
        """The recipe for a number of photos; `steps` above 0 takes the formula's place."""
        fields = {name: setting.value for name, setting in self.settings.items()}
        if self.tokens is not None:
            fields["tokens"] = TokenSettings(**{name: setting.value
                                                for name, setting in self.tokens.items()})
        return self.recipe(steps=steps or self.pace.steps(photos), **fields)

    def report(self, recipe: Recipe, photos: int, options: Iterable[str] = (),
               steps: int = 0) -> dict[str, Any]:
        """Every number of a recipe that this preset made, with its source, as plain values.

        Args:
            options: fields that were changed afterwards.
            steps: what took the place of the formula; 0: nothing did.
        """
        changed, values = set(options), recipe.as_dict()
        method, tokens = values.pop("method"), values.pop("tokens")
        own = dict(self.settings)
        own["steps"] = Setting(None, _OF_STEPS if steps else self.pace.source)
        own |= {name: Setting(None, _OF_OPTIONS) for name in changed}
        told = {name: _told(value, own.get(name, Setting(None, OWN)).source)
                for name, value in values.items()}
        if not steps and "steps" not in changed:
            told["steps"]["formula"] = self.pace.formula(photos)
        if tokens is not None:
            of_word = {} if "tokens" in changed else self.tokens or {}
            told["tokens"] = {name: _told(value, of_word[name].source if name in of_word else OWN)
                              for name, value in tokens.items()}
        return {"preset": self.id, "title": self.title,
                "architecture": ARCHITECTURES[self.architecture], "method": method,
                "published_for_faces": self.published, "photos": photos, "settings": told,
                "advice": {name: _told(setting.value, setting.source)
                           for name, setting in self.advice.items()}}


def _told(value: Any, source: Source) -> dict[str, Any]:
    told = {"value": value, "source": source.title}
    return {**told, "url": source.url} if source.url else told


FLOW, NOISE = "generic_flow", "generic_noise"
ARCHITECTURES: Mapping[str, str] = MappingProxyType({
    "sd15": "SD1.5", "sdxl": "SDXL", "sd3": "SD3", "flux": "FLUX.1", "z_image": "Z-Image",
    FLOW: "another flow model", NOISE: "another noise- or velocity-predicting model"})
# Classes of comfy.supported_models. FLUX.2 is one of FLUX.1's by descent and another network.
_CLASSES = {"SD15": "sd15", "SDXL": "sdxl", "SD3": "sd3", "Flux": "flux", "Flux2": "",
            "ZImage": "z_image"}


def architecture_of(classes: Iterable[str], flow: bool) -> str:
    """The key of ARCHITECTURES for a model.

    Args:
        classes: names of the model's class in comfy.supported_models and of its bases, in order.
        flow: whether the model predicts a flow.
    """
    found = next((_CLASSES[name] for name in classes if name in _CLASSES), "")
    return found or (FLOW if flow else NOISE)


def choose(title: str, architecture: str, flow: bool) -> Preset:
    """The preset of a title, or with an empty one the architecture's portrait preset.

    Raises:
        LikenessError: there is none of that title, or it is for another architecture.
    """
    fitting = [preset for preset in PRESETS
               if preset.architecture in (architecture, FLOW if flow else NOISE)]
    if not title:
        return fitting[0]
    preset = next((preset for preset in PRESETS if preset.title == title), None)
    if preset is None:
        raise LikenessError(f"There is no preset `{title}`; choose one of "
                            f"{', '.join(preset.title for preset in PRESETS)}.")
    if preset not in fitting:
        raise LikenessError(
            f"The preset `{title}` is for {ARCHITECTURES[preset.architecture]}, and the connected "
            f"MODEL is {ARCHITECTURES[architecture]}; choose auto or one of "
            f"{', '.join(preset.title for preset in fitting)}.")
    return preset


def _adapter(rank: int, alpha: float, rate: float, numbers: Source, /, **more: Setting) -> Settings:
    return MappingProxyType({"rank": Setting(rank, numbers), "alpha": Setting(alpha, numbers),
                             "learning_rate": Setting(rate, numbers), **more})


def _advice(resolution: int, source: Source, **more: Setting) -> Settings:
    return MappingProxyType({"resolution": Setting(resolution, source), **more})


_PERSON = Pace(120, 1500, 3500, STUDIO)
_LIKE_PERSON = Pace(120, 1500, 3500, LIKE_FLUX)
_COSINE = Setting(Schedule.COSINE, FACECHAIN)
_FACECHAIN_PACE = FACECHAIN.adapted("its 200 steps a photo, at most 800; the least number is this "
                                    "pack's")
_FACECHAIN_RATE = FACECHAIN.adapted("its rate, there with rank 4 and alpha 32")
_EDEN_PACE = EDEN_SD15.adapted("its 600 steps for about 10 photos, spread by photo")
_PIVOTAL_PACE = HF_PIVOTAL.adapted("its 1000 to 1500 steps, spread by photo")
_INVERSION_PACE = DIFFUSERS_INVERSION.adapted("its 3000 steps as the most, spread by photo")
_STUDIO_SMALL = STUDIO.adapted("its rate for SDXL, there with rank 32 and alpha 16")
_GAMMA = Setting(5.0, MIN_SNR)
_FLUX = {"guidance": Setting(1.0, KOHYA_FLUX), "shift_by_resolution": Setting(True, KOHYA_FLUX),
         "timesteps": Setting(Timesteps.LOGIT_NORMAL, KOHYA_FLUX),
         "caption_dropout": Setting(0.05, AI_TOOLKIT)}
_CHECKPOINTED = Setting(True, HF_FLUX_QLORA)
_BOOTH_PACE = (100, 800, 1200)
_BOOTH_SPREAD = "its 800 to 1200 steps for faces, spread by photo"
_CLASS = {"class_photos": Setting(200, DIFFUSERS_DREAMBOOTH)}

# The first of an architecture is its portrait preset.
PRESETS: tuple[Preset, ...] = (
    Preset("sd15_portrait", "SD1.5 portrait", "sd15", LoRARecipe,
           Pace(200, 400, 800, _FACECHAIN_PACE),
           _adapter(16, 16.0, 1.5e-4, _FACECHAIN_RATE, rank=Setting(16, ONE_TRAINER),
                    alpha=Setting(16.0, OWN), schedule=_COSINE, min_snr=_GAMMA),
           advice=_advice(512, FACECHAIN, photos=Setting("3 to 10", FACECHAIN))),
    Preset("sd15_pivotal", "SD1.5 pivotal", "sd15", LoRARecipe, Pace(60, 300, 900, _EDEN_PACE),
           _adapter(16, 16.0, 5e-4, EDEN_SD15, alpha=Setting(16.0, OWN),
                    batch_size=Setting(4, EDEN_SD15), min_snr=_GAMMA),
           tokens=MappingProxyType({"vectors": Setting(2, HF_PIVOTAL),
                                    "learning_rate": Setting(1e-3, EDEN_SD15),
                                    "share": Setting(0.5, HF_PIVOTAL)}),
           advice=_advice(768, EDEN_SD15, photos=Setting("about 10", EDEN_SD15))),
    Preset("sd15_dreambooth", "SD1.5 DreamBooth", "sd15", DreamBoothRecipe,
           Pace(*_BOOTH_PACE, HF_DREAMBOOTH.adapted(_BOOTH_SPREAD)),
           MappingProxyType({"learning_rate": Setting(1e-6, HF_DREAMBOOTH),
                             "batch_size": Setting(2, HF_DREAMBOOTH),
                             "class_weight": Setting(1.0, DREAMBOOTH_PAPER), "min_snr": _GAMMA}),
           advice=_advice(512, DIFFUSERS_DREAMBOOTH, **_CLASS)),
    Preset("sd15_textual_inversion", "SD1.5 textual inversion", "sd15", TextualInversionRecipe,
           Pace(200, 2000, 3000, _INVERSION_PACE),
           MappingProxyType({"learning_rate": Setting(1e-3, EDEN_SD15), "min_snr": _GAMMA}),
           tokens=MappingProxyType({"vectors": Setting(2, HF_PIVOTAL),
                                    "learning_rate": Setting(1e-3, EDEN_SD15)}),
           advice=_advice(512, DIFFUSERS_INVERSION)),
    Preset("sdxl_portrait", "SDXL portrait", "sdxl", LoRARecipe, _PERSON,
           _adapter(32, 16.0, 1e-4, STUDIO, min_snr=_GAMMA),
           advice=_advice(1024, STUDIO, photos=Setting("20 to 30", STUDIO))),
    Preset("sdxl_pivotal", "SDXL pivotal", "sdxl", LoRARecipe, Pace(100, 1000, 1500, _PIVOTAL_PACE),
           _adapter(32, 32.0, 1e-4, COG, alpha=Setting(32.0, OWN), min_snr=_GAMMA),
           tokens=MappingProxyType({"vectors": Setting(2, HF_PIVOTAL),
                                    "learning_rate": Setting(3e-4, HF_PIVOTAL),
                                    "share": Setting(0.5, HF_PIVOTAL)}),
           advice=_advice(1024, HF_PIVOTAL, photos=Setting("7 to 16", HF_PIVOTAL))),
    Preset("sdxl_8gb", "SDXL 8 GB", "sdxl", QLoRARecipe, _PERSON,
           _adapter(16, 16.0, 1e-4, _STUDIO_SMALL, rank=Setting(16, SMALL),
                    alpha=Setting(16.0, SMALL), min_snr=_GAMMA,
                    base_weights=Setting(BaseWeights.FP8, KOHYA_FP8),
                    batch_size=Setting(1, SMALL), gradient_checkpointing=Setting(True, SMALL)),
           advice=_advice(1024, STUDIO, photos=Setting("20 to 30", STUDIO))),
    Preset("sdxl_dreambooth", "SDXL DreamBooth", "sdxl", DreamBoothRecipe,
           Pace(*_BOOTH_PACE, LIKE_SD15.adapted(_BOOTH_SPREAD)),
           MappingProxyType({"learning_rate": Setting(1e-6, LIKE_SD15),
                             "batch_size": Setting(1, SMALL),
                             "target": Setting(Target.CROSS_ATTENTION, CUSTOM_DIFFUSION),
                             "class_weight": Setting(1.0, DREAMBOOTH_PAPER), "min_snr": _GAMMA}),
           advice=_advice(1024, OWN, **_CLASS), published=False),
    Preset("sd3_portrait", "SD3 portrait", "sd3", LoRARecipe, _LIKE_PERSON,
           _adapter(16, 16.0, 1e-4, LIKE_FLUX, shift=Setting(3.0, SD3_PAPER),
                    timesteps=Setting(Timesteps.LOGIT_NORMAL, SD3_PAPER)),
           advice=_advice(1024, SD3_PAPER), published=False),
    Preset("flux_portrait", "FLUX.1 portrait", "flux", LoRARecipe, _PERSON,
           _adapter(16, 16.0, 1e-4, STUDIO, ema=Setting(0.99, AI_TOOLKIT), **_FLUX),
           advice=_advice(1024, AI_TOOLKIT, photos=Setting("15 to 20", STUDIO))),
    Preset("flux_low_memory", "FLUX.1 low memory", "flux", QLoRARecipe, _PERSON,
           _adapter(16, 16.0, 1e-4, STUDIO, **_FLUX,
                    base_weights=Setting(BaseWeights.NF4, QLORA_PAPER),
                    optimizer=Setting(Optimizer.ADAMW_8BIT, HF_FLUX_QLORA),
                    batch_size=Setting(1, HF_FLUX_QLORA), gradient_checkpointing=_CHECKPOINTED),
           advice=_advice(512, HF_FLUX_QLORA, photos=Setting("15 to 20", STUDIO))),
    Preset("z_image_portrait", "Z-Image portrait", "z_image", LoRARecipe, _PERSON,
           _adapter(16, 16.0, 1e-4, STUDIO),
           advice=_advice(1024, STUDIO, photos=Setting("12 to 20", STUDIO))),
    Preset("generic_flow", "generic flow", FLOW, LoRARecipe, _LIKE_PERSON,
           _adapter(16, 16.0, 1e-4, LIKE_FLUX), published=False),
    Preset("generic_noise", "generic noise", NOISE, LoRARecipe, Pace(100, 800, 1500, OWN),
           _adapter(16, 16.0, 1e-4, OWN, min_snr=_GAMMA), published=False),
)
