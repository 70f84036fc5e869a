"""A tiny world for the bench of starts: known people, models taught their names, a new person.

People are random patterns of a small latent. A text encoder and a vision tower are trained as CLIP
was, by telling which caption belongs to which photo; then a tiny velocity-predicting SD1.5 is
taught people under their names, and under the class word as anyone; an attention patch is taught
to show faces by their embeddings. The new person is a mixture of two known ones and something of
their own that nothing has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import text_models
import torch
import training_models
from likeness.nodes.patching import AttentionPatch, add_to_attention, cross_attentions
from likeness.nodes.sockets import TrainingItem, TrainingSet
from likeness.nodes.tensors import write_conditioning, write_latent
from likeness.nodes.training.objective import objectives
from likeness.nodes.training.objective.denoise import denoise
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples import conds
from likeness.nodes.training.samples.data import collate, load_samples, seeded
from likeness.nodes.training.start import known_faces, vision
from likeness.nodes.training.start.first_values import initial_text
from likeness.nodes.training.steps.loop import Trainer
from likeness.nodes.training.text.encoders import TextEncoders
from torch.nn.functional import normalize, scaled_dot_product_attention

NAMES = ("tom", "anna", "peter", "maria", "john", "lucy", "david", "emma")
NOUN, TRIGGER = "person", "ohwx"
SHARES, OWN = (0.6, 0.4), 0.3  # of two known people in the new one, and of what is theirs alone
PHOTO, FACE = 0.2, 1.5  # how far photos of one person differ; noise of a face embedding, by length
SIDE, EMBEDDING, FACE_TOKENS = 4, 512, 2
WORD_LENGTH = 8.0  # random layers, from which CLIP's training begins, drown words of usual length
CLIP_RATE, LOGIT_SCALE = 1e-3, 1 / 0.07  # the scale at which CLIP's training began
BATCH, TEACHING_RATE, PATCH_RATE = 8, 4e-3, 1e-2
SCALE = 0.18215  # of SD1.5's latents
_UNET = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32,
         "use_spatial_transformer": True, "legacy": False, "use_checkpoint": False,
         "use_temporal_attention": False, "use_temporal_resblock": False, "num_heads": 2,
         "num_res_blocks": [1], "channel_mult": [1], "transformer_depth": [1],
         "transformer_depth_middle": 1, "transformer_depth_output": [1, 1], "context_dim": 64,
         "use_linear_in_transformer": False, "adm_in_channels": None}
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Person:
    """Someone whom no model of the world has seen."""

    looks: torch.Tensor  # (4, SIDE, SIDE)
    face: torch.Tensor  # (EMBEDDING,), of unit length
    mixed_of: tuple[str, str]
    own: TrainingSet  # photos to learn from, for the new word
    captioned: TrainingSet  # the same photos with the class word beside the trigger
    unseen: TrainingSet  # photos to measure on, for the new word
    unseen_captioned: TrainingSet


class World:
    """The known people and the models that know them.

    Args:
        folder: for files; made here.
        contrast: steps in which CLIP's towers learn which caption belongs to which photo.
        teaching: steps in which the UNet learns the names.

    Attributes:
        model: MODEL that knows the names.
        clip: CLIP whose words are strong enough to be told apart.
        right: loss of known people at high noise under their own names.
        wrong: under each other's.
        named: share of new photos of known people that CLIP's towers give the right name.
    """

    def __init__(self, seed: int, folder: Path, contrast: int,
                 teaching: int) -> None:
        folder.mkdir()
        self.seed, self.folder = seed, folder
        self.generator = seeded(seed, "world")
        self.people = self._draw(len(NAMES), 4, SIDE, SIDE)
        self.faces = normalize(self._draw(len(NAMES), EMBEDDING), dim=-1)
        self.clip = text_models.make_clip("sd15", folder, seed=seed)
        with torch.no_grad():
            self._clip_l.transformer.get_input_embeddings().weight.mul_(WORD_LENGTH)
        self.model = _tiny_unet(seed)
        self.tower = self._train_clip(contrast)
        self.named = self._named()
        self._teach_names(teaching)
        self.right, self.wrong = self._known_losses()

    @property
    def _clip_l(self) -> Any:
        return self.clip.cond_stage_model.clip_l

    def _draw(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def _photos(self, looks: torch.Tensor) -> torch.Tensor:
        """A photo of each looks (N, 4, SIDE, SIDE)."""
        return looks + PHOTO * self._draw(*looks.shape)

    def encode(self, text: str) -> Any:
        """What the host makes of a text."""
        with torch.no_grad():
            return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def _teach_names(self, steps: int) -> None:
        base = self.model.model
        network = base.diffusion_model.requires_grad_(True)
        rows = [_conds(base, self.encode(_caption(name))) for name in (*NAMES, NOUN)]
        optimizer = torch.optim.AdamW(network.parameters(), TEACHING_RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, TEACHING_RATE, total_steps=steps)
        for _ in range(steps):
            who = torch.randint(len(rows), (BATCH,), generator=self.generator)
            anyone = torch.randint(len(NAMES), (BATCH,), generator=self.generator)
            photos = self._photos(self.people[torch.where(who < len(NAMES), who, anyone)])
            sigmas = self._sigmas(BATCH)
            loss = _loss(base, photos, sigmas, self._draw(*photos.shape),
                         conds.batch([rows[at] for at in who], _CPU))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        network.requires_grad_(False)

    def _sigmas(self, count: int) -> torch.Tensor:
        """Noise levels (count,) of the noisier half of the schedule."""
        return self.model.model.model_sampling.sigmas[
            torch.randint(500, 1000, (count,), generator=self.generator)]

    def _known_losses(self) -> tuple[float, float]:
        base, count = self.model.model, len(NAMES)
        rows = [_conds(base, self.encode(_caption(name))) for name in NAMES]
        photos, noise = self._photos(self.people), self._draw(*self.people.shape)
        sigmas = base.model_sampling.sigmas[torch.full((count,), 900)]
        with torch.no_grad():
            return tuple(float(_loss(base, photos, sigmas, noise, conds.batch(order, _CPU)))
                         for order in (rows, rows[1:] + rows[:1]))

    def _train_clip(self, steps: int) -> torch.nn.Linear:
        """Train the text encoder and a vision tower on each other (arXiv 2103.00020).

        Each batch has a photo of everyone with their name, and of anyone with the class word.
        """
        text = self._clip_l.transformer.requires_grad_(True)
        tower = torch.nn.Linear(4 * SIDE * SIDE, text.text_projection.weight.shape[0])
        training_models.fill(tower, self.seed)
        scale = torch.nn.Parameter(torch.tensor(LOGIT_SCALE).log())
        optimizer = torch.optim.AdamW([*text.parameters(), *tower.parameters(), scale], CLIP_RATE,
                                      weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, CLIP_RATE, total_steps=steps)
        pairs = torch.arange(len(NAMES) + 1)
        # The host adds to what its norms have saved for their backward pass.
        hooks = [norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(),))
                 for norm in text.modules() if isinstance(norm, torch.nn.LayerNorm)]
        for step in range(steps):
            anyone = torch.randint(len(NAMES), (1,), generator=self.generator)
            photos = self._photos(torch.cat([self.people, self.people[anyone]]))
            form = vision.TEMPLATES[step % len(vision.TEMPLATES)]
            texts = self._projected([form.format(name) for name in (*NAMES, NOUN)])
            logits = scale.exp() * texts @ normalize(tower(photos.flatten(1)), dim=-1).T
            loss = sum(torch.nn.functional.cross_entropy(way, pairs) for way in (logits, logits.T))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(text.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        for hook in hooks:
            hook.remove()
        text.requires_grad_(False)
        return tower.requires_grad_(False)

    @torch.no_grad()
    def _named(self) -> float:
        who = torch.arange(len(NAMES)).repeat_interleave(8)
        photos = self._photos(self.people[who])
        texts = self._projected([vision.TEMPLATES[0].format(name) for name in NAMES])
        named = (self.tower(photos.flatten(1)) @ texts.T).argmax(dim=1)
        return float((named == who).float().mean())

    def _projected(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts in the space that CLIP's picture and text towers share, unit vectors (N, D)."""
        # CLIP.encode_from_tokens would choose the unprojected ones again.
        self._clip_l.set_clip_options({"projected_pooled": True})
        tokens = [[entry[0] for entry in self.clip.tokenize(text)["l"][0]] for text in texts]
        _, pooled = self._clip_l(tokens)
        self._clip_l.reset_clip_options()
        return normalize(pooled, dim=-1)

    def teach_patch(self, steps: int) -> Mapping[Any, torch.Tensor]:
        """Maps from a face embedding to what each cross-attention adds: (2, E, tokens, width).

        Learned on any mixtures of the known people, the UNet frozen.
        """
        recipe = LoRARecipe(caption_dropout=0.0, gradient_checkpointing=False)
        photos = self.training_set("faces", _caption(NOUN), self.people[:1])
        trainer = Trainer(self.model, photos, recipe, self.seed)
        sample, = load_samples(trainer.base, photos, recipe, _CPU)
        text = collate([sample] * BATCH, sample.captions[:1] * BATCH, _CPU).conds
        maps = {layer.place: torch.nn.Parameter(
            self._draw(2, EMBEDDING, FACE_TOKENS, layer.width) * 0.1)
            for layer in cross_attentions(self.model)}
        optimizer = torch.optim.Adam(maps.values(), PATCH_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PATCH_RATE, total_steps=steps)
        with trainer.attached(adapted=False):
            for _ in range(steps):
                mixtures = torch.rand(BATCH, len(NAMES), generator=self.generator) ** 4
                looks, faces = self._mixed(mixtures)
                patches = {tuple(place): AttentionPatch((term,))
                           for place, term in face_terms(maps, faces).items()}
                loss = _loss(trainer.base, self._photos(looks), self._sigmas(BATCH),
                             self._draw(*looks.shape), text,
                             {"patches_replace": {"attn2": patches}})
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return {place: weights.detach() for place, weights in maps.items()}

    def _mixed(self, mixtures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Looks and noisy face embeddings of mixtures (N, people), with something of their own."""
        looks = _spread_one(torch.einsum("np,pchw->nchw", mixtures, self.people))
        looks = _spread_one(looks + OWN * self._draw(*looks.shape))
        faces = normalize(mixtures @ self.faces, dim=-1)
        noise = FACE * self._draw(*faces.shape) / EMBEDDING ** 0.5
        return looks, normalize(faces + noise, dim=-1)

    def newcomers(self, number: int) -> tuple[Person, Person]:
        """Two people, each of two known ones that have no part in the other."""
        drawn = torch.randperm(len(NAMES), generator=self.generator)
        return self._person(f"{number}", drawn[:2]), self._person(f"{number} another", drawn[2:4])

    def _person(self, number: str, pair: torch.Tensor) -> Person:
        mixture = torch.zeros(1, len(NAMES))
        mixture[0, pair] = torch.tensor(SHARES)
        (looks,), (face,) = self._mixed(mixture)
        sets = []
        for kind, count in (("own", 4), ("unseen", 8)):
            photos = self._photos(looks.expand(count, -1, -1, -1))
            sets += [self.training_set(f"{kind}{number}{end}", _caption(words), photos)
                     for end, words in (("", TRIGGER), (" class", f"{TRIGGER} {NOUN}"))]
        return Person(looks, face, tuple(NAMES[at] for at in pair), *sets)

    def with_face(self, maps: Mapping[Any, torch.Tensor], person: Person) -> Any:
        """The MODEL with a patch that shows a person's face."""
        return add_to_attention(self.model, face_terms(maps, person.face[None]))

    def from_vision(self, person: Person, steps: int) -> tuple[dict[str, Any], vision.Seen]:
        """Rows whose texts lie nearest to where the vision tower sees the person's photos."""
        photos = torch.stack([sample.latent for sample in load_samples(
            self.model.model, person.own, LoRARecipe(caption_dropout=0.0), _CPU)])
        image = normalize(normalize(self.tower(photos.flatten(1)), dim=-1).mean(dim=0), dim=0)
        text = self._new_word()
        seen = vision.look(text, image, tuple(text.tokens.rows), steps)["clip_l"]
        return {name: rows.detach() for name, rows in text.tokens.rows.items()}, seen

    def from_known_faces(self, person: Person) -> tuple[dict[str, Any], dict[str, float]]:
        """Rows mixed of the names whose faces are alike, and the shares."""
        alike = dict(zip(NAMES, (self.faces @ person.face).tolist(), strict=True))
        weights = known_faces.weigh(alike)
        return known_faces.mix(self._new_word(), weights), weights

    def _new_word(self) -> TextEncoders:
        return initial_text(self.clip, TRIGGER, NOUN, 1, NOUN)

    def training_set(self, name: str, caption: str, photos: Sequence[torch.Tensor]) -> TrainingSet:
        """A training set of latents (4, SIDE, SIDE) at the model's scale, all with one caption."""
        text = self.folder / f"{name} text.safetensors"
        write_conditioning(text, self.encode(caption))
        items = []
        for number, photo in enumerate(photos):
            path, side = self.folder / f"{name} {number}.safetensors", 8 * SIDE
            write_latent(path, photo / SCALE, torch.ones(SIDE, SIDE))
            items.append(TrainingItem(path.name, "", caption, (side, side), (side, side),
                                      (0.0, 0.0, float(side), float(side)), path, caption))
        return TrainingSet(tuple(items), {caption: text}, self.folder, name, "Ann", TRIGGER,
                           {caption: caption})


def _caption(name: str) -> str:
    return f"a photo of {name}"


def _spread_one(looks: torch.Tensor) -> torch.Tensor:
    return looks / looks.std(dim=(1, 2, 3), keepdim=True)


def _conds(base: Any, text: Any) -> conds.ModelConds:
    latent, side = torch.zeros(1, 4, SIDE, SIDE), 8 * SIDE
    item = TrainingItem("", "", "", (side, side), (side, side), (0.0, 0.0, side, side), Path(), "")
    return conds.model_conds(base, text, item, latent, 1.0, _CPU)


def _loss(base: Any, photos: torch.Tensor, sigmas: torch.Tensor, noise: torch.Tensor,
          text: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> torch.Tensor:
    """Mean squared error of the velocity."""
    noisy = base.model_sampling.noise_scaling(sigmas, noise, photos)
    estimate = denoise(base, noisy, sigmas, text, options or {})
    return objectives.residual(base.model_sampling, sigmas, estimate, photos).square().mean()


def _tiny_unet(seed: int) -> Any:
    config = comfy.supported_models.SD15(dict(_UNET))
    config.set_inference_dtype(torch.float32, None)
    # Velocity counts what a picture shows at every noise level; noise, only where pixels tell it.
    base = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.V_PREDICTION)
    training_models.fill(base.diffusion_model, seed)
    base.eval()
    return comfy.model_patcher.ModelPatcher(base, load_device=_CPU, offload_device=_CPU)


def face_terms(maps: Mapping[Any, torch.Tensor], faces: torch.Tensor) -> dict[Any, FaceTerm]:
    """What faces (B, EMBEDDING) add to each cross-attention."""
    return {place: FaceTerm(*torch.einsum("be,netc->nbtc", faces, weights))
            for place, weights in maps.items()}


@dataclass(frozen=True, eq=False)
class FaceTerm:
    """A small attention patch: keys and values (B or 1, T, C) beside the text's."""

    keys: torch.Tensor
    values: torch.Tensor

    def __call__(self, q: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
        heads = [part.expand(len(q), -1, -1).unflatten(-1, (options["n_heads"], -1)).transpose(1, 2)
                 for part in (q, self.keys, self.values)]
        return scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)

    def to(self, where: Any) -> FaceTerm:
        """On another device or in another number format."""
        return replace(self, keys=self.keys.to(where), values=self.values.to(where))
