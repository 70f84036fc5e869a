"""A photo folder goes to the server with all that the loader reads beside the photos."""

from __future__ import annotations

import email.parser
import email.policy
import http.server
import threading

import pytest
from PIL import Image

from launcher.client.api import Client
from launcher.client.photos import list_photos, upload_photos
from launcher.problems import Problem


@pytest.fixture
def server():
    """A server that keeps what is uploaded, as names below its input folder."""
    kept = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            parts = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
            found = {part.get_param("name", header="content-disposition"): part
                     for part in parts.iter_parts()}
            name = found["image"].get_filename()
            folder = found["subfolder"].get_payload(decode=True).decode()
            kept[f"{folder}/{name}"] = found["image"].get_payload(decode=True)
            answer = f'{{"name": "{name}"}}'.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield Client(f"http://127.0.0.1:{running.server_port}"), kept
    running.shutdown()
    running.server_close()


def _picture(path, kind="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, kind)


def test_captions_masks_and_verdicts_go_up_with_the_photos(server, tmp_path):
    client, kept = server
    for name in ("a.jpg", "b.jfif", "IMG_3", "masks/a.jpg", "b-masklabel.png", "other/c.jpg"):
        _picture(tmp_path / name, "PNG" if name.endswith(".png") else "JPEG")
    for name in ("a.txt", "b.caption", "verdicts.txt", "notes.docx", ".hidden.txt"):
        (tmp_path / name).write_text("ohwx man")
    photos = list_photos(tmp_path)
    assert [photo.name for photo in photos] == ["IMG_3", "a.jpg", "b.jfif"]
    folder, others = upload_photos(client, photos, tmp_path)
    assert {name.removeprefix(f"{folder}/") for name in kept} == {
        "IMG_3", "a.jpg", "b.jfif", "masks/a.jpg", "b-masklabel.png", "a.txt", "b.caption",
        "verdicts.txt"}
    assert others == 5
    assert kept[f"{folder}/masks/a.jpg"] == (tmp_path / "masks/a.jpg").read_bytes()


def test_a_kohya_folder_and_a_saved_set_go_up_with_their_folders(server, tmp_path):
    client, kept = server
    for name in ("10_ohwx man/a.jpg", "masks/a.png", "left_out/b.jpg"):
        _picture(tmp_path / name, "JPEG")
    for name in ("10_ohwx man/a.txt", "likeness.json"):
        (tmp_path / name).write_text("{}")
    folder, others = upload_photos(client, list_photos(tmp_path), tmp_path)
    assert sorted(name.removeprefix(f"{folder}/") for name in kept) == [
        "10_ohwx man/a.jpg", "10_ohwx man/a.txt", "left_out/b.jpg", "likeness.json", "masks/a.png"]
    assert others == 4


def test_photos_that_lie_only_in_sub_folders_are_named(tmp_path):
    _picture(tmp_path / "holiday" / "a.jpg")
    with pytest.raises(Problem, match="sub-folders with photos: holiday"):
        list_photos(tmp_path)
