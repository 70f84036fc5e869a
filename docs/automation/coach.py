"""Photos of one person in, the coach's page out, over ComfyUI's HTTP API; Python alone.

    python coach.py http://127.0.0.1:8188 ~/my_selfies workflows/api/coach_photos.json page.png
"""

import json
import mimetypes
import sys
import time
import urllib.parse
import urllib.request
import uuid
from pathlib import Path


def request(url, body=None, kind="application/json"):
    """POST a body, or GET without one."""
    asked = urllib.request.Request(url, data=body, headers={"Content-Type": kind})
    with urllib.request.urlopen(asked) as answer:
        return answer.read()


def upload(server, file, folder):
    """Put one file into a sub-folder of the server's input folder."""
    edge = uuid.uuid4().hex
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    head = (f'--{edge}\r\nContent-Disposition: form-data; name="subfolder"\r\n\r\n{folder}\r\n'
            f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="{file.name}"\r\n'
            f"Content-Type: {kind}\r\n\r\n")
    body = head.encode() + file.read_bytes() + f"\r\n--{edge}--\r\n".encode()
    request(f"{server}/upload/image", body, f"multipart/form-data; boundary={edge}")


def run(server, prompt):
    """Queue a prompt and wait for the record of its end."""
    answer = json.loads(request(f"{server}/prompt", json.dumps({"prompt": prompt}).encode()))
    if answer.get("node_errors"):
        sys.exit(f"The server would leave something out: {answer['node_errors']}")
    while True:
        history = json.loads(request(f"{server}/history/{answer['prompt_id']}"))
        if history:
            return history[answer["prompt_id"]]
        time.sleep(1)


def main(server, photos, workflow, page):
    folder = f"likeness_{uuid.uuid4().hex[:10]}"  # `run.py forget` knows folders of this kind
    for file in sorted(Path(photos).expanduser().iterdir()):
        upload(server, file, folder)
    prompt = json.loads(Path(workflow).read_text("utf-8"))
    prompt["photos"]["inputs"]["folder"] = folder
    record = run(server, prompt)
    if record["status"]["status_str"] != "success":
        sys.exit(f"It did not run to its end: {record['status']['messages'][-1]}")
    picture = record["outputs"]["coach"]["images"][0]
    Path(page).write_bytes(request(f"{server}/view?{urllib.parse.urlencode(picture)}"))


if __name__ == "__main__":
    main(*sys.argv[1:])
