"""Measures the packed demonstrator as its model card states it.

    python tests/demonstrator/measure.py WORK PORTRAITS [--json FILE] [--count N] [--sheet PNG]

Pictures are drawn by the host's own sampler. The second judge is MobileFaceNet, which no loss of
the demonstrator has ever asked.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import captions
import crops
import cv2
import judge
import numpy as np
import torch
from checkpoint import NAME
from pack_import import ROOT, pack, prepare_imports
from PIL import Image
from prepare import SIDE, colour_word, crop_box

STEPS, CFG, SAMPLER, SCHEDULER = 20, 2.5, "dpmpp_2m", "karras"
_BATCH = 16
_PER_WORD = 24  # pictures for each word whose effect is told


class Demonstrator:
    """The checkpoint as CheckpointLoaderSimple loads it."""

    def __init__(self, file: Path) -> None:
        prepare_imports()
        import comfy.sd

        from launcher.tiny.architectures import register

        register()
        self.model, self.clip, self.vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(file), output_vae=True, output_clip=True)

    def fits(self, text: str) -> bool:
        """Whether a prompt is encoded as one part, so that it can share a batch with others."""
        return len(next(iter(self.clip.tokenize(text).values()))) == 1

    def draw(self, prompts: list[str], seed: int) -> np.ndarray:
        """One picture for each prompt: (N, SIDE, SIDE, 3) uint8."""
        import nodes

        made = []
        with torch.inference_mode():
            (empty,) = nodes.CLIPTextEncode().encode(self.clip, "")
            for start in range(0, len(prompts), _BATCH):
                part = prompts[start:start + _BATCH]
                encoded = [nodes.CLIPTextEncode().encode(self.clip, text)[0][0] for text in part]
                positive = [[torch.cat([row[0] for row in encoded]), {}]]
                (canvas,) = nodes.EmptyLatentImage().generate(SIDE, SIDE, len(part))
                (drawn,) = nodes.KSampler().sample(
                    self.model, seed + start, STEPS, CFG, SAMPLER, SCHEDULER, positive, empty,
                    canvas, 1.0)
                (pictures,) = nodes.VAEDecode().decode(self.vae, drawn)
                made.append((pictures.clamp(0, 1) * 255).round().byte().numpy())
        return np.concatenate(made)


def seen_faces(pictures: np.ndarray) -> list[Any]:
    """The only face of each picture, or None where there is none or are several."""
    find = pack("faces.detect").find_faces
    found = [find(np.ascontiguousarray(picture)) for picture in pictures]
    return [faces[0] if len(faces) == 1 else None for faces in found]


def embeddings(pictures: np.ndarray, faces: list[Any]) -> np.ndarray:
    """Unit embeddings (N, 192) of the second judge."""
    embed = pack("faces.recognise.mobilefacenet").embed
    rows = np.stack([embed(np.ascontiguousarray(picture), face)
                     for picture, face in zip(pictures, faces, strict=True)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def quality(pictures: np.ndarray, faces: list[Any]) -> dict[str, float]:
    """What the pack's own judge says: quality (0 to 1), sharpness, and faces with a fault.

    Faults of size are left out: at 128 pixels every face is small.
    """
    axes, select = pack("scoring.score.axes"), pack("dataset.coach.select")
    judging, photo = pack("quality.judge"), pack("sockets").Photo
    rules, sizes = pack("quality.rules").Rules(), {"too_small", "enlarged"}
    good, sharp, faulty = [], [], []
    for picture, face in zip(pictures, faces, strict=True):
        measures = {"faces": 1.0, "second_face": 0.0,
                    **axes.measure_face(np.ascontiguousarray(picture), face)}
        sharp.append(measures["sharpness"])
        good.append(select.quality_of(photo(file=Path("x"), name="x", measures=measures)))
        reasons = judging.judge(pack("quality.look").Seen(face, measures), rules)
        faulty.append(bool({reason.rule for reason in reasons} - sizes))
    return {"quality": float(np.median(good)), "sharpness": float(np.median(sharp)),
            "with_faults": float(np.mean(faulty))}


def downsized(files: list[Path]) -> tuple[np.ndarray, list[Any]]:
    """Portraits of 256 pixels a side, cut as the pack cuts them and downsized to SIDE."""
    made = []
    for file in files:
        pixels = pack("media.images").read_photo(file)
        pixels = cv2.resize(pixels, (256, 256), interpolation=cv2.INTER_AREA)
        face = pack("faces.detect").find_face(pixels)
        if face is None:
            continue
        crop = pack("dataset.prepare.crop")
        made.append(crop.cut(pixels, crop.Crop(crop_box(pixels, face), (SIDE, SIDE))))
    faces = seen_faces(np.stack(made))
    kept = [number for number, face in enumerate(faces) if face is not None]
    return np.stack([made[number] for number in kept]), [faces[number] for number in kept]


def alike(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Cosines of all pairs (N, M)."""
    return rows @ others.T


def summary(work: Path, portraits: Path, file: Path, count: int,
            sheet: Path | None) -> dict[str, Any]:
    """All figures of the card."""
    stored = np.load(work / "portraits.npz")
    labels = [json.loads(text) for text in stored["labels"]]
    trained = np.flatnonzero(~stored["held_out"] & stored["frontal"])
    random = np.random.default_rng(2026)
    demonstrator = Demonstrator(file)
    drawn = (captions.caption(labels[random.choice(trained)], random) for _ in range(2 * count))
    prompts = [text for text in drawn if text and demonstrator.fits(text)][:count]
    started = time.process_time()
    pictures = demonstrator.draw(prompts, seed=1)
    seconds = (time.process_time() - started) / count
    if sheet is not None:
        save_sheet(pictures[:64], sheet)
    faces = seen_faces(pictures)
    good = [number for number, face in enumerate(faces) if face is not None]
    own = embeddings(pictures[good], [faces[number] for number in good])
    real_pictures, real_faces = downsized([portraits / str(name) for name in
                                           stored["names"][trained]])
    real = embeddings(real_pictures, real_faces)
    between_real = alike(real, real)
    np.fill_diagonal(between_real, np.nan)
    between_own = alike(own, own)
    np.fill_diagonal(between_own, np.nan)
    nearest_real = np.nanmax(between_real, axis=1)
    nearest_own = alike(own, real).max(1)
    limit = float(np.quantile(nearest_real, 0.95))
    return {
        "pictures": count, "one_face": len(good) / count,
        "faces": quality(pictures[good], [faces[number] for number in good]),
        "faces_of_portraits": quality(real_pictures, real_faces),
        "diversity": float((1 - np.nanmedian(between_own)) / (1 - np.nanmedian(between_real))),
        "nearest_portrait_median": float(np.median(nearest_own)),
        "nearest_other_person_median": float(np.median(nearest_real)),
        "near_copies": float((nearest_own > limit).mean()), "near_copy_limit": limit,
        "autoencoder": autoencoder_likeness(demonstrator, work),
        "words": words(demonstrator, stored, labels, real_pictures, real),
        "cpu_seconds_per_picture": seconds, "steps": STEPS, "cfg": CFG}


def autoencoder_likeness(demonstrator: Demonstrator, work: Path) -> dict[str, float]:
    """How much of a held-out face the autoencoder keeps, by the second judge."""
    held = crops.read(work)[2]
    rows = [crops.plain(held, row) for row in range(len(held.canvases))]
    true = crops.tensor([crop for crop, _ in rows])
    with torch.inference_mode():
        latents = demonstrator.vae.encode(true.permute(0, 2, 3, 1))
        made = demonstrator.vae.decode(latents).permute(0, 3, 1, 2).clamp(0, 1).clone()
    grids = judge.face_grids([marks for _, marks in rows])
    cosines = (judge.second_judge(true, grids) * judge.second_judge(made, grids)).sum(1)
    return {"people": len(rows), "median": float(cosines.median()),
            "lowest": float(cosines.min())}


def words(demonstrator: Demonstrator, stored: Any, labels: list[dict], real_pictures: np.ndarray,
          real: np.ndarray) -> dict[str, float]:
    """Share of the pictures that show what the prompt asks for, word by word.

    What embeddings tell of gender, glasses and age is fitted to the portraits by ridge regression.
    """
    trained = np.flatnonzero(~stored["held_out"] & stored["frontal"])
    rows = stored["embeddings"][trained][:, 128:]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def fitted(values: np.ndarray) -> Any:
        mean = values.mean()
        weights = np.linalg.solve(rows.T @ rows + 1.0 * np.eye(rows.shape[1]),
                                  rows.T @ (values - mean))
        return lambda seen: seen @ weights + mean

    woman = fitted(np.array([labels[row]["gender"] == "female" for row in trained], float))
    glasses = fitted(np.array([labels[row]["glasses"] for row in trained], float))
    age = fitted(np.array([labels[row]["age"] for row in trained], float))

    def drawn(text: str) -> tuple[np.ndarray, list[Any], np.ndarray]:
        pictures = demonstrator.draw([text] * _PER_WORD, seed=77)
        faces = seen_faces(pictures)
        good = [number for number, face in enumerate(faces) if face is not None]
        kept = [faces[number] for number in good]
        return pictures[good], kept, embeddings(pictures[good], kept)

    told = {}
    men, women = drawn("photo of a man"), drawn("photo of a woman")
    told["man"], told["woman"] = float((woman(men[2]) < 0.5).mean()), float(
        (woman(women[2]) > 0.5).mean())
    expression = pack("quality.expression").expression_of
    for text, kinds in (("smiling with teeth", {"laugh", "smile"}),
                        ("serious expression", {"serious", "neutral"})):
        _, faces, _ = drawn(f"photo of a man, {text}")
        told[text] = float(np.mean([expression(face) in kinds for face in faces]))
    with_glasses = drawn("photo of a man, wearing glasses")[2]
    told["glasses_score_with"] = float(glasses(with_glasses).mean())
    told["glasses_score_without"] = float(glasses(men[2]).mean())
    for text in ("young man", "old man"):
        told[f"{text}_age"] = float(np.median(age(drawn(f"photo of a {text}")[2])))
    for colour in ("blue", "white", "black"):
        pictures, _, _ = drawn(f"photo of a man, {colour} background")
        told[f"{colour}_background"] = float(np.mean([colour_word(np.concatenate(
            [picture[:24, :14].reshape(-1, 3), picture[:24, -14:].reshape(-1, 3)])) == colour
            for picture in pictures]))
    for colour, text in (("black", "dark suit"), ("red", "red jacket")):
        pictures, _, _ = drawn(f"photo of a woman, {text}")
        told[text] = float(np.mean([colour_word(np.concatenate(
            [picture[-14:, 8:36].reshape(-1, 3), picture[-14:, -36:-8].reshape(-1, 3)])) == colour
            for picture in pictures]))
    return told


def save_sheet(pictures: np.ndarray, file: Path, across: int = 16) -> None:
    """Pictures (N, H, W, 3) side by side."""
    lines = [np.concatenate(list(pictures[start:start + across]), axis=1)
             for start in range(0, len(pictures), across)]
    Image.fromarray(np.concatenate(lines)).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("portraits", type=Path)
    parser.add_argument("--file", type=Path, default=ROOT / "launcher" / "demonstrator" / NAME)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = summary(options.work, options.portraits, options.file, options.count, options.sheet)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
