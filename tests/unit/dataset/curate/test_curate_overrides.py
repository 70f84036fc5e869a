"""The user's own verdicts stand above the judge's and survive."""

from __future__ import annotations

import pytest
from likeness.nodes.dataset.curate.curate import curate
from likeness.nodes.dataset.curate.overrides import FILE, parse, read_overrides
from likeness.nodes.dataset.curate.report import key_of, report
from likeness.nodes.dataset.curate.sheet import curation_sheet
from likeness.nodes.errors import LikenessError
from likeness.nodes.quality.rules import Rules
from PIL import ImageFilter


@pytest.fixture
def run(folder, load_folder):
    """Curate the folder with the widget's text; photos by name, and the notes."""
    def run(widget=""):
        photos = load_folder(folder)
        own = read_overrides(widget, photos.photos)
        run.judged = curate(photos, Rules(), lambda done: None, own)
        run.notes = own.notes
        return {photo.name: photo for photo in run.judged.photos}

    return run


def test_a_rejected_photo_can_be_kept_and_its_reasons_stay(folder, run, portrait):
    portrait.filter(ImageFilter.GaussianBlur(5)).save(folder / "blurred.jpg")
    photo = run("blurred.jpg: keep it is the only smile")["blurred.jpg"]
    assert photo.verdict == "keep" and photo.overridden
    assert [reason.rule for reason in photo.reasons] == ["blurred", "by_hand"]
    assert "it is the only smile" in photo.reasons[-1].text


def test_a_good_photo_can_be_turned_down(run):
    photos = run("good_obama.jpg: reject")
    assert photos["good_obama.jpg"].verdict == "reject" and photos["good_obama.jpg"].overridden
    assert not photos["good_obama3.jpg"].overridden


def test_a_file_beside_the_photos_counts_and_the_widget_wins(folder, run):
    (folder / FILE).write_text("good_obama.jpg: reject\ngood_obama3.jpg: unsure looks odd\n")
    assert run()["good_obama.jpg"].verdict == "reject"
    photos = run("good_obama.jpg: keep")
    assert photos["good_obama.jpg"].verdict == "keep"
    assert photos["good_obama3.jpg"].verdict == "unsure"


def test_an_unknown_name_in_the_widget_names_near_ones(run):
    with pytest.raises(LikenessError, match="`good_obma.jpg`.*near names are good_obama"):
        run("good_obma.jpg: keep")


def test_a_name_in_the_file_that_is_gone_is_only_noted(folder, run):
    (folder / FILE).write_text("gone.jpg: reject\n")
    assert {photo.verdict.value for photo in run().values()} == {"keep"}
    assert "gone.jpg" in run.notes[0]
    assert report(run.judged, Rules(), run.notes)["notes"] == list(run.notes)


@pytest.mark.parametrize("verdict", ["keep", "unsure"])
def test_a_photo_without_a_usable_face_cannot_be_kept(folder, run, portrait, verdict):
    (folder / "broken.jpg").write_bytes(b"x")
    portrait.crop((0, 560, 910, 1137)).save(folder / "headless.jpg")
    photos = run(f"broken.jpg: {verdict}\nheadless.jpg: {verdict}")
    for name in ("broken.jpg", "headless.jpg"):
        assert photos[name].verdict == "reject" and not photos[name].overridden
        assert photos[name].reasons[-1].rule == "not_overridden"


def test_the_copy_that_the_user_keeps_stays_and_the_better_one_goes(folder, run, portrait):
    portrait.resize((728, 910)).save(folder / "small.jpg", quality=95)
    assert run()["small.jpg"].verdict == "reject"
    photos = run("small.jpg: keep")
    assert photos["small.jpg"].verdict == "keep" and photos["small.jpg"].reasons == ()
    assert [reason.rule for reason in photos["good_obama.jpg"].reasons] == ["duplicate"]


def test_who_is_turned_down_does_not_decide_who_the_person_is(folder, run, assets):
    (folder / "good_turned.jpg").unlink()
    for name in ("biden", "biden2"):
        (folder / f"{name}.jpg").write_bytes((assets / f"{name}.jpg").read_bytes())
    assert {photo.verdict.value for photo in run().values()} == {"unsure"}
    photos = run("biden.jpg: reject")
    assert photos["good_obama.jpg"].verdict == photos["good_obama3.jpg"].verdict == "keep"
    assert photos["biden2.jpg"].verdict == "reject"


def test_an_override_survives_a_second_curation(run):
    run("good_obama.jpg: reject too old")
    again = curate(run.judged, Rules(), lambda done: None)
    photo = next(photo for photo in again.photos if photo.name == "good_obama.jpg")
    assert photo.verdict == "reject" and photo.overridden
    assert [reason.text for reason in photo.reasons] == ["By hand: too old."]


def test_verdicts_by_hand_change_the_key_and_the_sheet(run):
    run()
    plain = key_of(run.judged, Rules()), curation_sheet(run.judged)
    run("good_obama.jpg: keep")
    assert key_of(run.judged, Rules()) != plain[0]
    assert (curation_sheet(run.judged) != plain[1]).any()
    assert report(run.judged, Rules())["overridden"] == ["good_obama.jpg"]


@pytest.mark.parametrize("line", ["a.jpg keep", "a.jpg: maybe", ": keep", "a.jpg: keepsake"])
def test_a_line_that_says_nothing_is_refused_with_its_number(line):
    with pytest.raises(LikenessError, match="Line 2 of"):
        parse(f"# mine\n{line}", "`overrides`")


def test_names_with_spaces_and_colons_are_read():
    read = parse("my photo: 2.jpg : Keep - nice\n\n", "`overrides`")
    assert read["my photo: 2.jpg"].verdict == "keep"
    assert read["my photo: 2.jpg"].why == "nice"


def test_a_new_file_of_verdicts_makes_the_graph_run_again(folder, monkeypatch):
    from likeness.nodes import runtime
    from likeness.nodes.dataset.saved.load_nodes import LikenessLoadPhotos

    monkeypatch.setattr(runtime, "input_directory", lambda: folder.parent)
    before = LikenessLoadPhotos.fingerprint_inputs(folder.name, "")
    assert LikenessLoadPhotos.fingerprint_inputs(folder.name, "") == before
    (folder / FILE).write_text("good_obama.jpg: reject\n")
    assert LikenessLoadPhotos.fingerprint_inputs(folder.name, "") != before


def test_a_copy_that_the_user_is_unsure_of_does_not_take_the_good_one_with_it(folder, run,
                                                                             portrait):
    portrait.resize((728, 910)).save(folder / "small.jpg", quality=95)
    photos = run("small.jpg: unsure")
    assert photos["good_obama.jpg"].verdict == "keep" and photos["good_obama.jpg"].reasons == ()
    assert photos["small.jpg"].verdict == "unsure"
    assert "which seems to be the original" in photos["small.jpg"].reasons[0].text
