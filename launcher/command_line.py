"""`run.py`'s commands and options."""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .bench import check as check_bench
from .bench import run_bench
from .console import complain, say, step
from .demo.command import DemoRequest, check, run_demo
from .demo.prompts import WORKFLOW
from .hosts import server
from .hosts.attach import ready_host
from .hosts.embedded import Embedded
from .hosts.host import ROOT, Host, chosen_folder, require_new_enough
from .inputs import run_inputs
from .people.belongings import Places
from .people.command import PeopleRequest, run_people
from .people.forget import run_forget
from .problems import Problem
from .queue import LOG, TEMP, Request, run_fetch, run_queue

DEFAULT_PORT = 8188
_PROCESSES = ("-n", "2", "--dist", "loadscope")  # tests/conftest.py says which go together


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description="Selfies to headshots in ComfyUI.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, *parents: argparse.ArgumentParser, **words: str) -> (
            argparse.ArgumentParser):
        # Abbreviations would swallow options that are meant for pytest.
        return commands.add_parser(name, parents=parents, allow_abbrev=False, **words)

    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--comfyui", metavar="PATH", help="a ComfyUI of your own (or COMFYUI_PATH); "
                       "default: the one around this pack, else an embedded one under .host/")
    where.add_argument("--python", metavar="FILE", help="the Python that runs your ComfyUI")
    wheels = argparse.ArgumentParser(add_help=False)
    wheels.add_argument("--cpu-wheels", action="store_true", help="set the embedded host up with "
                        "torch for the CPU, where your package sources have it")

    command("setup", where, wheels, help="get a host ready and stop")
    demo = command("demo", where, wheels,
                   help="the whole path on sample photos, nothing to download")
    demo.add_argument("--checkpoint", metavar="NAME", help="a real model of your host, for real "
                      "headshots; default: the small one of the pack")
    demo.add_argument("--photos", type=Path, metavar="DIR", help="your own photos")
    demo.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    serve = command("serve", where, wheels, help="start the host for use in the browser")
    serve.add_argument("--port", type=int, default=DEFAULT_PORT)
    queue = command("queue", where, help="run a workflow file")
    queue.add_argument("workflow", type=Path, metavar="WORKFLOW.json", help="in API format")
    queue.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE",
                       dest="settings", help="node by title or id; may be repeated")
    queue.add_argument("--photos", type=Path, metavar="DIR", help="photos for LikenessLoadPhotos")
    queue.add_argument("--out", type=Path, metavar="DIR",
                       help="fetch the results there; of folders, the photo sets that were saved "
                            "by a server on this machine")
    queue.add_argument("--server", metavar="URL", help="a running ComfyUI; default: start one")
    queue.add_argument("--json", type=Path, metavar="FILE", help="also write what came of it there")
    queue.add_argument("--wait", action=argparse.BooleanOptionalAction, default=True,
                       help="--no-wait queues it on --server, prints its id and ends")
    fetch = command("fetch", help="what a workflow of `queue --no-wait` has made")
    fetch.add_argument("prompt", metavar="ID", help="as `queue --no-wait` printed it")
    fetch.add_argument("--server", metavar="URL", required=True, help="where it was queued")
    fetch.add_argument("--out", type=Path, metavar="DIR", help="fetch the results there")
    fetch.add_argument("--json", type=Path, metavar="FILE", help="also write what came of it there")
    inputs = command("inputs", help="what a workflow file takes")
    inputs.add_argument("workflow", type=Path, metavar="WORKFLOW.json", help="in API format")
    inputs.add_argument("--server", metavar="URL", help="a running ComfyUI, which knows ranges, "
                        "choices and words")
    inputs.add_argument("--json", type=Path, metavar="FILE", help="also write a JSON Schema there")
    people = command("people", where, help="run a workflow for everybody in a folder")
    people.add_argument("folder", type=Path, metavar="DIR", help="one sub-folder of photos for "
                        "each person; a settings.txt in it takes lines as --set does")
    people.add_argument("--out", type=Path, metavar="DIR", required=True,
                        help="takes a folder for each person; run again, a batch goes on there")
    people.add_argument("--workflow", type=Path, metavar="FILE", default=WORKFLOW,
                        help="in API format; default: selfies_to_headshots")
    people.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE",
                        dest="settings", help="for everybody; may be repeated")
    people.add_argument("--server", metavar="URL", help="a running ComfyUI; default: start one")
    forget = command("forget", help="remove everything that was written of a person")
    forget.add_argument("name", metavar="NAME", help="as the Subject or the folder is called")
    forget.add_argument("--comfyui", metavar="PATH", help="the host; default: as elsewhere")
    forget.add_argument("--input-directory", type=Path, metavar="DIR", help="the host's own, where "
                        "it was started with that option; so the next")
    forget.add_argument("--output-directory", type=Path, metavar="DIR")
    forget.add_argument("--out", type=Path, metavar="DIR", help="also from these results of "
                        "`people`")
    forget.add_argument("--yes", action="store_true", help="remove; without it, only say what")
    command("test", where, wheels, help="run the tests; further arguments go to pytest")
    bench = command("bench", where, wheels,
                    help="run a measurement; further arguments go to it")
    bench.add_argument("name", metavar="NAME", help="tests/bench/bench_NAME.py, or all")
    bench.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code.

    0: done. 2: unknown options. After one sentence on stderr: 3 the server refused the workflow,
    4 a node failed, 5 it was cancelled, 6 the server went away, 7 a workflow has not ended,
    8 some people of a batch failed, 130 Ctrl-C, 1 anything else. `test` and `bench` give their own.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in ("test", "bench"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return _run(options, rest)
    except Problem as problem:
        complain(str(problem))
        return problem.code
    except KeyboardInterrupt:
        complain("Stopped.")
        return 130


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    match options.command:
        case "setup":
            host = _host(options)
            say(f"Ready: ComfyUI in {host.comfyui}, run by {host.python}.")
        case "demo":
            request = DemoRequest(options.checkpoint, options.photos, options.json)
            check(request)
            run_demo(request, _host(options))
        case "serve":
            server.require_free(options.port)
            _serve(_host(options), options.port)
        case "queue":
            run_queue(Request(options.workflow, options.settings, options.photos, options.out,
                              options.server, options.comfyui, options.python, options.json,
                              options.wait))
        case "fetch":
            run_fetch(options.server, options.prompt, options.out, options.json)
        case "inputs":
            run_inputs(options.workflow, options.server, options.json)
        case "people":
            run_people(PeopleRequest(options.folder, options.out, options.workflow,
                                     tuple(options.settings), options.server, options.comfyui,
                                     options.python))
        case "forget":
            run_forget(options.name, _places(options), options.out, options.yes)
        case "test":
            return _test(_host(options, tests=True), rest)
        case "bench":
            check_bench(options.name, options.json)
            return run_bench(options.name, _host(options, tests=True), rest, options.json)
    return 0


def _host(options: argparse.Namespace, tests: bool = False) -> Host:
    return ready_host(options.comfyui, options.python, tests=tests,
                      cpu_wheels=options.cpu_wheels)


def _places(options: argparse.Namespace) -> Places:
    comfyui = chosen_folder(options.comfyui) or Embedded().comfyui
    require_new_enough(comfyui)
    return Places(options.input_directory or comfyui / "input",
                  options.output_directory or comfyui / "output", (comfyui / "temp", TEMP),
                  comfyui / "models")


def _serve(host: Host, port: int) -> None:
    with step("Starting ComfyUI"):
        running = server.start(host.python, host.comfyui, LOG, port=port)
    with running:
        say(f"ComfyUI is at {running.url}; its log is {LOG}. Ctrl-C stops it.")
        code = running.process.wait()
    raise Problem(f"ComfyUI has ended by itself (exit code {code}); its log is {LOG}.")


def _test(host: Host, arguments: list[str]) -> int:
    chosen = any(not item.startswith("-") and Path(item.split("::")[0]).exists()
                 for item in arguments)
    command = [str(host.python), "-m", "pytest", *([] if chosen else ["tests", *_PROCESSES]),
               *arguments]
    # A test's tiny models lose more to several threads than they gain.
    environment = {"COMFYUI_PATH": str(host.comfyui), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}).returncode
