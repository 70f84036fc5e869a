"""What `run.py` says to input that it cannot use: one sentence, and nothing half-written."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest

from launcher.command_line import main

WORKFLOW = str(Path(__file__).resolve().parents[3] / "workflows/api/selfies_to_headshots.json")


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if "page" in self.server.kind else 404)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *words):
        """Keep quiet."""


@pytest.fixture(params=["page", "missing"])
def web_server(request):
    """The address, without a scheme, of a web server that is not ComfyUI."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        server.kind = request.param
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def said(capfd, arguments: list[str], code: int = 1) -> str:
    """The one sentence that a command ends with."""
    assert main(arguments) == code
    out, err = capfd.readouterr()
    assert err.count("\n") == 1 and "Traceback" not in out
    return err


@pytest.mark.parametrize("arguments, sentence", [
    (["queue", "none.json"], "There is no workflow file none.json"),
    (["queue", WORKFLOW, "--out", "file"], "file is a file; give a folder with --out"),
    (["queue", WORKFLOW, "--out", "file/below"], "file is a file; give a folder with --out"),
    (["queue", WORKFLOW, "--server", "ftp://x"], "`ftp://x` is no address of a ComfyUI server"),
    (["queue", WORKFLOW, "--server", "x:99999"], "`x:99999` is no address of a ComfyUI server"),
    (["queue", WORKFLOW, "--server", "localhost:1"], "No ComfyUI server answers on http://local"),
    (["queue", WORKFLOW, "--json", "nowhere/x.json"], "The folder of nowhere/x.json does not"),
    (["queue", WORKFLOW, "--json", "."], ". is a folder; name a file in it with --json"),
    (["fetch", "x", "--server", "localhost:1"], "No ComfyUI server answers on http://local"),
    (["demo", "--comfyui", "nowhere"], "There is no ComfyUI in"),
    (["demo", "--json", "nowhere/x.json"], "The folder of nowhere/x.json does not exist"),
    (["demo", "--json", "."], ". is a folder; name a file in it with --json"),
    (["demo", "--photos", "file"], "The photo folder file is a file"),
    (["serve", "--port", "99999"], "99999 is no port; choose one from 1024 to 65535"),
    (["serve", "--port", "-1"], "-1 is no port"),
    (["bench", "nothing"], "There is no bench `nothing`"),
])
def test_bad_input_is_one_sentence_on_stderr_and_an_exit_code(capfd, monkeypatch, tmp_path,
                                                              arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code = 6 if sentence.startswith("No ComfyUI server answers") else 1
    assert sentence in said(capfd, arguments, code)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_server_that_is_not_comfyui_is_one_sentence(capfd, web_server):
    text = said(capfd, ["queue", WORKFLOW, "--server", web_server])
    assert f"The server on http://{web_server} does not answer as ComfyUI does" in text
