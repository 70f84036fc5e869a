"""Each rule speaks against the photo made for it, and against no other."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from likeness.nodes.dataset.curate import curate as curation
from likeness.nodes.dataset.curate.curate import count_rules, curate
from likeness.nodes.dataset.curate.report import key_of, report
from likeness.nodes.errors import LikenessError, PictureError
from likeness.nodes.quality import judge as judging
from likeness.nodes.quality import look as looking
from likeness.nodes.quality.look import Seen
from likeness.nodes.quality.measures import face_width
from likeness.nodes.quality.rules import Rules
from likeness.nodes.sockets import HeadPose
from PIL import Image, ImageFilter, ImageOps


def gain(picture: Image.Image, factor: float) -> Image.Image:
    """Expose a picture by so much more light."""
    linear = (np.asarray(picture, np.float64) / 255) ** 2.2 * factor
    return Image.fromarray(np.uint8(np.clip(linear, 0, 1) ** (1 / 2.2) * 255))


def rules_of(photo) -> list[str]:
    return [reason.rule for reason in photo.reasons]


def test_good_photos_are_kept_without_a_reason(judge):
    photos = judge()
    assert len(photos) == 3
    for photo in photos.values():
        assert photo.reasons == () and photo.face is not None
        assert photo.measures["distance"] < 0.48


def test_a_blurred_photo_is_rejected(folder, judge, portrait):
    portrait.filter(ImageFilter.GaussianBlur(5)).save(folder / "blurred.jpg")
    photo = judge()["blurred.jpg"]
    assert photo.verdict == "reject" and rules_of(photo) == ["blurred"]
    assert photo.measures["sharpness"] < 40


def test_a_soft_photo_is_unsure(folder, judge, assets):
    with Image.open(assets / "biden2.jpg") as picture:
        sharp = picture.convert("RGB")
    sharp.filter(ImageFilter.GaussianBlur(2.2)).save(folder / "soft.jpg")
    photo = judge(stranger=(2.0, 2.0))["soft.jpg"]
    assert photo.verdict == "unsure" and rules_of(photo) == ["blurred"]


def test_sharpness_does_not_depend_on_the_size_of_the_photo(judge, folder, portrait):
    portrait.resize((1820, 2274), Image.Resampling.LANCZOS).save(folder / "big.jpg")
    photos = judge(duplicate_bits=-1)
    ratio = photos["big.jpg"].measures["sharpness"] / photos["good_obama.jpg"].measures["sharpness"]
    assert ratio == pytest.approx(1, abs=0.25)


def test_a_dark_photo_is_rejected_for_the_dark_and_not_for_blur(folder, judge, portrait):
    gain(portrait, 0.05).save(folder / "dark.jpg")
    photo = judge()["dark.jpg"]
    assert photo.verdict == "reject" and rules_of(photo) == ["dark"]


def test_a_dim_photo_is_unsure(folder, judge, portrait):
    gain(ImageOps.mirror(portrait), 0.2).save(folder / "dim.jpg")
    photo = judge(duplicate_bits=-1)["dim.jpg"]
    assert photo.verdict == "unsure" and rules_of(photo) == ["dark"]


def test_a_burnt_out_photo_is_rejected(folder, judge, portrait):
    gain(portrait, 5).save(folder / "bright.jpg")
    photo = judge()["bright.jpg"]
    assert photo.verdict == "reject" and "bright" in rules_of(photo)
    assert photo.measures["clipped_bright"] > 0.3


def test_a_photo_without_a_face_is_rejected(folder, judge, portrait):
    portrait.crop((0, 560, 910, 1137)).save(folder / "headless.jpg")
    photo = judge()["headless.jpg"]
    assert photo.verdict == "reject" and rules_of(photo) == ["no_face"] and photo.face is None


def side_by_side(folder, portrait, assets):
    both = Image.new("RGB", (1820, 1137), "grey")
    both.paste(ImageOps.mirror(portrait), (0, 0))
    with Image.open(assets / "biden2.jpg") as other:
        both.paste(other.resize((520, 520)), (1100, 200))
    both.save(folder / "both.jpg")


@pytest.mark.parametrize(("policy", "verdict"), [("reject", "reject"), ("unsure", "unsure"),
                                                 ("largest", "keep"), ("subject", "keep")])
def test_two_people_side_by_side_follow_the_chosen_policy(folder, judge, portrait, assets, policy,
                                                          verdict):
    side_by_side(folder, portrait, assets)
    photo = judge(several_faces=policy, duplicate_bits=-1)["both.jpg"]
    assert photo.verdict == verdict
    assert rules_of(photo) == ([] if policy in ("largest", "subject") else ["several_faces"])
    assert photo.measures["faces"] == 2


def test_a_small_face_in_the_background_does_not_count(folder, judge, portrait, assets):
    picture = ImageOps.mirror(portrait)
    with Image.open(assets / "biden2.jpg") as other:
        picture.paste(other.resize((230, 230)), (20, 60))
    picture.save(folder / "background.jpg")
    photo = judge(duplicate_bits=-1)["background.jpg"]
    assert photo.measures["faces"] == 2 and photo.verdict == "keep"


@pytest.mark.parametrize(("scale", "verdict"), [(0.35, "reject"), (0.47, "unsure")])
def test_a_small_face_is_rejected_or_unsure(folder, judge, portrait, scale, verdict):
    mirrored = ImageOps.mirror(portrait)
    size = round(910 * scale), round(1137 * scale)
    mirrored.resize(size, Image.Resampling.LANCZOS).save(folder / "tiny.jpg", quality=95)
    photo = judge(duplicate_bits=-1)["tiny.jpg"]
    assert photo.verdict == verdict and rules_of(photo) == ["too_small"]
    assert photo.measures["face_width"] == pytest.approx(234 * scale, rel=0.05)


@pytest.mark.parametrize("name", ["obama_partial_face", "obama_partial_face2"])
def test_half_a_face_is_rejected(folder, judge, assets, name):
    (folder / "half.jpg").write_bytes((assets / f"{name}.jpg").read_bytes())
    photo = judge()["half.jpg"]
    assert photo.verdict == "reject" and rules_of(photo) == ["cut_off"]


@pytest.mark.parametrize("name", ["biden", "biden2"])
def test_somebody_else_is_rejected(folder, judge, assets, name):
    (folder / "guest.jpg").write_bytes((assets / f"{name}.jpg").read_bytes())
    photo = judge()["guest.jpg"]
    assert photo.verdict == "reject" and rules_of(photo) == ["somebody_else"]
    assert photo.measures["distance"] > 0.6


def test_without_a_majority_everybody_is_unsure(folder, judge, assets):
    for name in ("good_obama", "good_obama3", "good_turned"):
        (folder / f"{name}.jpg").unlink()
    for name in ("obama", "biden2"):
        (folder / f"{name}.jpg").write_bytes((assets / f"{name}.jpg").read_bytes())
    photos = judge()
    assert [photo.verdict for photo in photos.values()] == ["unsure", "unsure"]
    assert all(rules_of(photo) == ["somebody_else"] for photo in photos.values())


def test_a_single_photo_cannot_be_somebody_else(folder, judge):
    (folder / "good_obama3.jpg").unlink()
    (folder / "good_turned.jpg").unlink()
    assert len(judge()) == 1


@pytest.mark.parametrize("variant", [
    lambda picture: picture.crop((130, 20, 800, 900)),
    lambda picture: picture.resize((1365, 1706), Image.Resampling.BICUBIC).crop(
        (100, 0, 1300, 1500)).resize((720, 900), Image.Resampling.LANCZOS),
    lambda picture: picture.rotate(6, Image.Resampling.BICUBIC).crop((90, 60, 820, 1050)),
    lambda picture: gain(picture, 0.7),
], ids=["crop", "crop and scale", "rotation", "exposure"])
def test_another_crop_of_the_same_shot_is_a_duplicate(folder, judge, portrait, variant):
    variant(portrait).save(folder / "again.jpg", quality=90)
    photo = judge()["again.jpg"]
    assert photo.verdict == "reject" and rules_of(photo) == ["duplicate"]
    assert "good_obama.jpg" in photo.reasons[0].text


def test_a_copy_that_was_only_enlarged_loses_to_the_original(folder, judge, portrait):
    portrait.resize((1820, 2274), Image.Resampling.LANCZOS).save(folder / "a_large.jpg", quality=95)
    assert rules_of(judge()["a_large.jpg"]) == ["duplicate"]


def test_a_rejected_copy_does_not_take_the_good_one_with_it(folder, judge, portrait):
    bigger = portrait.resize((1820, 2274), Image.Resampling.LANCZOS)
    bigger.filter(ImageFilter.GaussianBlur(11)).save(folder / "blurred.jpg")
    assert rules_of(judge()["blurred.jpg"]) == ["blurred"]


def test_duplicates_can_be_allowed(folder, judge, portrait):
    portrait.crop((130, 20, 800, 900)).save(folder / "again.jpg", quality=95)
    assert judge(duplicate_bits=-1)["again.jpg"].verdict == "keep"


def test_a_turned_head_is_unsure(judge):
    face = judge()["good_obama.jpg"].face
    measures = judge()["good_obama.jpg"].measures
    profile = dataclasses.replace(face, pose=HeadPose(yaw=-70.0, pitch=0.0, roll=0.0))
    (reason,) = judging.judge(Seen(profile, measures), Rules())
    assert reason.rule == "turned" and reason.verdict == "unsure" and "70 degrees" in reason.text


def test_a_broken_file_is_rejected_and_the_rest_judged(folder, judge):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    photo = judge()["broken.jpg"]
    assert photo.verdict == "reject" and rules_of(photo) == ["unreadable"]


def test_a_file_that_vanished_since_loading_is_rejected(load_folder, folder):
    photos = load_folder(folder)
    looking.forget_photos()
    (folder / "good_obama.jpg").unlink()
    judged = {photo.name: photo for photo in
              curate(photos, Rules(), lambda done: None).photos}
    assert rules_of(judged["good_obama.jpg"]) == ["unreadable"]


def test_curation_leaves_its_input_alone_and_repeats_itself(load_folder, folder):
    photos = load_folder(folder)
    first = curate(photos, Rules(), lambda done: None)
    second = curate(first, Rules(), lambda done: None)
    assert all(photo.verdict is None and photo.face is None for photo in photos.photos)
    assert report(first, Rules()) == report(second, Rules())


def test_progress_is_told_per_photo_and_may_cancel(load_folder, folder):
    class Cancelled(Exception):
        pass

    def cancel_at_two(done: int) -> None:
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        curate(load_folder(folder), Rules(), cancel_at_two)


def test_a_model_that_fails_on_one_photo_loses_no_other(load_folder, folder, monkeypatch):
    photos = load_folder(folder)
    spoilt = photos.photos[1]

    def fail(file, sha256):
        if file == spoilt.file:
            raise PictureError("the model failed on a 1 x 1 picture.")
        return looking.look(file, sha256)

    monkeypatch.setattr(curation, "look", fail)
    judged = curate(photos, Rules(), lambda done: None)
    (reason,) = judged.photos[1].reasons
    assert reason.rule == "unreadable" and "failed on a 1 x 1 picture" in reason.text
    assert [photo.verdict for photo in judged.photos].count("keep") == 2


def test_a_model_that_cannot_start_is_no_verdict_on_the_photos(load_folder, folder, monkeypatch):
    def fail(file, sha256):
        raise LikenessError("MediaPipe cannot start.")

    monkeypatch.setattr(curation, "look", fail)
    with pytest.raises(LikenessError, match="cannot start"):
        curate(load_folder(folder), Rules(), lambda done: None)


def test_a_cancelled_curation_leaves_the_photos_behind_it_alone(load_folder, folder, monkeypatch):
    photos = load_folder(folder)
    many = dataclasses.replace(photos, photos=photos.photos * 40)
    looked = []

    def look(file, sha256):
        time.sleep(0.01)
        looked.append(file)
        return looking.Seen(None, {"faces": 0.0})

    monkeypatch.setattr(curation, "look", look)

    def cancel(done):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        curate(many, Rules(), cancel)
    assert len(looked) < len(many.photos) / 2


def test_of_copies_the_less_compressed_one_is_kept(folder, judge, assets):
    with Image.open(assets / "biden2.jpg") as picture:
        original = picture.convert("RGB")
    for path in folder.iterdir():
        path.unlink()
    original.save(folder / "b_original.png")
    original.save(folder / "a_compressed.jpg", quality=30)
    photos = judge()
    assert photos["b_original.png"].verdict == "keep"
    assert rules_of(photos["a_compressed.jpg"]) == ["duplicate"]


def test_the_report_counts_and_explains(load_folder, folder, assets):
    (folder / "guest.jpg").write_bytes((assets / "biden2.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes(b"x")
    judged = curate(load_folder(folder), Rules(), lambda done: None)
    data = report(judged, Rules())
    assert (data["kept"], data["unsure"], data["rejected"]) == (3, 0, 2)
    assert data["by_rule"] == count_rules(judged) == {"unreadable": 1, "somebody_else": 1}
    guest = next(entry for entry in data["photos"] if entry["name"] == "guest.jpg")
    assert guest["verdict"] == "reject" and guest["file"] == str(folder / "guest.jpg")
    assert guest["reasons"][0]["rule"] == "somebody_else" and guest["reasons"][0]["text"]
    assert set(guest["pose"]) == {"yaw", "pitch", "roll"}
    broken = data["photos"][0]
    assert broken["pose"] is None and broken["measures"] == {}


def test_the_key_follows_photos_and_rules(load_folder, folder):
    photos = load_folder(folder)
    keys = {key_of(photos, Rules()), key_of(photos, Rules(min_face=200))}
    (folder / "good_obama.jpg").unlink()
    keys.add(key_of(load_folder(folder), Rules()))
    assert len(keys) == 3


@pytest.mark.parametrize("angle", [-25, 0, 25])
def test_tilting_the_picture_does_not_change_the_width_of_the_face(portrait, angle):
    from likeness.nodes.faces.detect import find_face

    tilted = np.asarray(portrait.rotate(angle, Image.Resampling.BICUBIC, fillcolor="grey"))
    assert face_width(find_face(tilted)) == pytest.approx(237, rel=0.05)


def test_contradicting_rules_are_refused():
    with pytest.raises(LikenessError, match="min_sharpness"):
        Rules(min_sharpness=200.0, soft_sharpness=100.0)
    with pytest.raises(LikenessError, match="reject, unsure, largest, subject"):
        Rules(several_faces="guess")


def test_the_demo_photos_get_the_promised_verdicts(load_folder, tmp_path):
    from launcher.makers.sample_photos import KEPT, write

    write(tmp_path)
    judged = curate(load_folder(tmp_path), Rules(), lambda done: None)
    verdicts = [photo.verdict.value for photo in judged.photos]
    assert len(verdicts) == 10
    assert verdicts[:KEPT] == ["keep"] * KEPT
    assert "keep" not in verdicts[KEPT:]
