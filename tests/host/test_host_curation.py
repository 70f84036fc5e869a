"""The eye through the queue: from a folder to curated, captioned and saved photos, and scores.

Every node takes the host's own defaults for what a test does not set.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from launcher.client.refusals import FailedPrompt
from launcher.makers import sample_photos

PACK_MODELS = Path(__file__).resolve().parents[2] / "nodes" / "faces" / "models"
SFACE = "face_detection_yunet_2023mar.onnx", "face_recognition_sface_2021dec.onnx"
SELECTED = 4  # of the ten sample photos, of which curation keeps more
# Nodes of the whole graph that show pictures beside their text.
PICTURED = ("curate", "select", "coach", "crop", "caption", "subject", "score", "pick", "report")
REPORTED = ("photos", "save", "saved", *(title for title in PICTURED if title != "coach"))


class Nodes:
    """Builds a graph; what is not given takes the default that the host states."""

    def __init__(self, graph, info):
        self._graph, self._info = graph, info
        self.named = {}

    def add(self, node_class, title, /, **inputs):
        """Add a node under a title of its own."""
        asked = self._info[node_class]["input"].get("required", {})
        defaults = {name: default_of(spec) for name, spec in asked.items()}
        given = {name: value for name, value in {**defaults, **inputs}.items()
                 if value is not None}
        self.named[title] = self._graph.add(node_class, title, **given)
        return self.named[title]

    @property
    def prompt(self):
        """The graph so far."""
        return self._graph.prompt


def default_of(spec):
    """A required widget's default; None for a socket."""
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if isinstance(kind, list) or kind == "COMBO":
        values = kind if isinstance(kind, list) else options["options"]
        return options.get("default", values[0] if values else None)
    return options.get("default")


@pytest.fixture(scope="module")
def samples(host):
    """The sample photos in the server's input folder."""
    return sample_photos.write(host.input / "eye")


@pytest.fixture(scope="module")
def second_judge(host):
    """Files for a second recogniser in the host's folder, gone afterwards."""
    pytest.importorskip("onnx")
    from launcher.tiny.opencv_zoo import make_files

    folder = host.base / "models" / "opencv_zoo"
    made = not folder.exists()
    make_files(folder, PACK_MODELS, *SFACE)
    yield "sface"
    if made:
        shutil.rmtree(folder)


@pytest.fixture
def nodes(graph, object_info):
    return Nodes(graph, object_info)


def pictures(nodes, *files):
    """A batch of pictures of one size from the input folder, by core's nodes."""
    batch = None
    for number, file in enumerate(files):
        loaded = nodes.add("LoadImage", f"picture {number}", image=file)
        scaled = nodes.add("ImageScale", f"scaled {number}", image=loaded, width=384, height=480,
                           crop="center")
        batch = scaled if batch is None else nodes.add(
            "ImageBatch", f"batch {number}", image1=batch, image2=scaled)
    return batch


def judged(nodes, folder, **curation):
    photos = nodes.add("LikenessLoadPhotos", "photos", folder=folder)
    return nodes.add("LikenessCuratePhotos", "curate", photos=photos, **curation)


def subject_of(nodes, photos, **settings):
    """A subject, with its sheet shown: a node runs only for what is shown or saved."""
    subject = nodes.add("LikenessSubject", "subject", photos=photos, **settings)
    nodes.add("PreviewImage", "sheet", images=subject(1))
    return subject


def whole(nodes, second):
    """Every node of the eye in one graph."""
    curated = judged(nodes, "eye")
    selected = nodes.add("LikenessSelectPhotos", "select", photos=curated, count=SELECTED)
    coach = nodes.add("LikenessCoach", "coach", photos=curated)
    nodes.add("LikenessCropPhotos", "crop", photos=selected, resolution=256,
              framing="head and shoulders")
    captioned = nodes.add("LikenessCaptionPhotos", "caption", photos=selected,
                          class_noun="man")
    saved = nodes.add("LikenessSavePhotos", "save", photos=captioned, name="eye")
    loaded = nodes.add("LikenessLoadPhotos", "saved", folder=saved(1))
    nodes.add("LikenessCropPhotos", "saved crop", photos=loaded, resolution=256)
    subject = subject_of(nodes, saved, name="eye", held_out=1)
    bank = nodes.add("LikenessImpostorBank", "bank", folder="strangers")
    images = pictures(nodes, "eye/01_portrait.jpg", "eye/04_window_light.jpg",
                      "eye/09_somebody_else.jpg", "eye/10_head_out_of_frame.jpg")
    score = nodes.add("LikenessScore", "score", images=images, subject=subject, bank=bank,
                      second_backend=second, several_faces="most like the subject", max_yaw=40.0,
                      prompt="photo of ohwx man")
    nodes.add("LikenessPick", "pick", images=images, subject=subject, report=score(4),
              copies="allow", count=2, verdict="any scored", when_none="best one")
    nodes.add("LikenessReport", "report", report=score(4), subject=subject, images=images,
              coach_report=coach(2))
    return nodes


@pytest.fixture(scope="module")
def run(host, samples, second_judge, new_graph, object_info):
    """The whole graph, run once: the nodes' titles to their ids, and the run."""
    strangers = host.input / "strangers"
    strangers.mkdir()
    for name in ("biden.jpg", "biden2.jpg", "astronaut.jpg"):
        shutil.copy(sample_photos.ASSETS / name, strangers)
    nodes = whole(Nodes(new_graph(), object_info), second_judge)
    return {title: node.id for title, node in nodes.named.items()}, host.run(nodes.prompt)


def told(run, title):
    """A node's text as JSON."""
    ids, done = run
    return json.loads(done.text(ids[title]))


@pytest.mark.parametrize("title", REPORTED)
def test_every_node_tells_the_history_in_json(run, title):
    assert told(run, title)


def test_the_coach_tells_the_history_in_words(run):
    ids, done = run
    assert len(done.text(ids["coach"]).split()) > 10


def test_the_sheet_and_the_coachs_page_are_files_that_a_run_hands_out(run):
    _, done = run
    names = {file.filename.partition("-")[0] for file in done.files()}
    assert {"curation", "coach"} <= names


@pytest.mark.parametrize("title", PICTURED)
def test_every_node_that_looks_at_photos_shows_a_picture_in_the_history(host, run, tmp_path, title):
    ids, done = run
    shown = done.files(ids[title], "temp") + done.files(ids[title], "output")
    assert shown
    with Image.open(host.client.download(shown[0], tmp_path / "shown.png")) as picture:
        assert len(picture.convert("L").getcolors(1 << 16)) > 10, "the picture is empty"


def test_selection_takes_as_many_as_asked_of_those_that_are_kept(run):
    kept = {photo["name"] for photo in told(run, "curate")["photos"] if photo["verdict"] == "keep"}
    taken = {photo["name"] for photo in told(run, "crop")["photos"]}
    assert len(taken) == SELECTED and taken < kept


def test_what_was_saved_is_what_is_loaded_and_trains(host, run):
    saved = told(run, "save")
    assert saved["trains"] == SELECTED and saved["load_as"] == "output/likeness/eye"
    folder = Path(saved["training_folder"])
    texts = [file.read_text() for file in folder.glob("*.txt")]
    assert len(texts) == SELECTED and all("ohwx man" in text for text in texts)
    boxes = [[(photo["size"], photo["turn"]) for photo in told(run, title)["photos"]]
             for title in ("crop", "saved crop")]
    assert sorted(boxes[0]) == sorted(boxes[1])


def test_the_person_is_told_from_a_stranger_by_both_judges(run):
    images = {image["index"]: image for image in told(run, "score")["images"]}
    assert images[0]["score"] > images[2]["score"]
    assert images[2]["verdict"] == "reject"
    assert images[3]["status"] == "no_face" and images[3]["score"] is None
    assert "sface" in json.dumps(told(run, "score"))


def test_a_second_run_repeats_only_what_reads_a_folder_that_another_node_names(
        host, run, graph, object_info, second_judge):
    executed = host.run(whole(Nodes(graph, object_info), second_judge).prompt).executed
    assert executed == {run[0][title] for title in ("saved", "saved crop")}


def folder_of(host, name, files):
    """A folder below the input folder with these files' copies."""
    return host.copy_photos(list(files), name)


def failure(host, nodes):
    """The sentence that a failed run gives."""
    with pytest.raises(FailedPrompt) as caught:
        host.run(nodes.prompt)
    text = str(caught.value)
    assert "Traceback" not in text and "\n" not in text and text.endswith((".", ")"))
    return text


def test_photos_of_different_people_are_told_and_make_no_subject(host, nodes, assets):
    folder = folder_of(host, "different", [assets / f"{name}.jpg" for name in (
        "obama", "biden2", "astronaut")])
    curated = judged(nodes, folder, min_face=64)
    report = json.loads(host.run(nodes.prompt).text(curated.id))
    assert report["unsure"] == len(report["people"]) == 3
    assert all(photo["name"] in report["summary"] for photo in report["photos"])
    subject_of(nodes, curated)
    assert f"{report['summary'].split('. ')[0]}. Load photos of one person" in failure(host, nodes)


def test_a_truncated_photo_is_left_out_and_named(host, nodes, samples):
    folder = folder_of(host, "cut", [samples["01_portrait.jpg"], samples["02_outdoors.jpg"]])
    whole_file = samples["04_window_light.jpg"].read_bytes()
    (host.input / folder / "cut.jpg").write_bytes(whole_file[:len(whole_file) // 2])
    curated = judged(nodes, folder)
    report = json.loads(host.run(nodes.prompt).text(curated.id))
    verdicts = {photo["name"]: photo for photo in report["photos"]}
    assert [reason["rule"] for reason in verdicts["cut.jpg"]["reasons"]] == ["unreadable"]
    assert sum(photo["verdict"] == "keep" for photo in verdicts.values()) == 2


def test_one_photo_is_curated_and_coached_but_makes_no_subject(host, nodes, samples):
    folder = folder_of(host, "single", [samples["01_portrait.jpg"]])
    curated = judged(nodes, folder)
    coach = nodes.add("LikenessCoach", "coach", photos=curated)
    assert host.run(nodes.prompt).text(coach.id)
    subject_of(nodes, curated)
    assert "Only 1 of 1 photos can be used" in failure(host, nodes)


@pytest.mark.parametrize("node_class", [
    "LikenessSelectPhotos", "LikenessCoach", "LikenessCropPhotos", "LikenessCaptionPhotos"])
def test_photos_without_a_face_leave_nothing_to_work_on(host, nodes, samples, node_class):
    folder = folder_of(host, "faceless", [samples["10_head_out_of_frame.jpg"]])
    nodes.add(node_class, "next", photos=judged(nodes, folder))
    if node_class == "LikenessCoach":  # an empty set is what it advises on best
        assert host.run(nodes.prompt).text(nodes.named["next"].id)
    elif node_class == "LikenessSelectPhotos":  # the coach behind it shall speak, too
        coach = nodes.add("LikenessCoach", "coach", photos=nodes.named["next"])
        done = host.run(nodes.prompt)
        assert "be used" in json.loads(done.text(nodes.named["next"].id))["note"]
        assert done.text(coach.id)
    else:
        assert "`next` failed" in failure(host, nodes)


def test_photos_that_nobody_judged_are_sent_to_the_curation(host, nodes, samples):
    photos = nodes.add("LikenessLoadPhotos", "photos", folder="eye")
    nodes.add("LikenessCropPhotos", "crop", photos=photos)
    assert "Curate" in failure(host, nodes)


def test_a_recogniser_without_its_files_names_file_and_folder(host, nodes, samples):
    subject = subject_of(nodes, judged(nodes, "eye"), name="missing")
    nodes.add("LikenessScore", "score", images=pictures(nodes, "eye/01_portrait.jpg"),
              subject=subject, backend="buffalo_l")
    text = failure(host, nodes)
    assert "insightface" in text and "buffalo_l" in text and ".onnx" in text
    assert "non-commercial" in text


def test_half_of_a_clip_is_refused(host, nodes, samples):
    subject = subject_of(nodes, judged(nodes, "eye"), name="clip")
    loader = nodes.add("CheckpointLoaderSimple", "model", ckpt_name="tiny_sd15.safetensors")
    nodes.add("LikenessScore", "score", images=pictures(nodes, "eye/01_portrait.jpg"),
              subject=subject, clip=loader(1), prompt="photo of ohwx man")
    assert "`clip_vision` is not connected" in failure(host, nodes)
