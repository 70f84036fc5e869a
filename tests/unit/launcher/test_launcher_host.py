"""Finding the host, and what the launcher says when it cannot be used."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from launcher.hosts import host, server
from launcher.hosts.attach import link_pack, ready_host
from launcher.hosts.links import link_folder
from launcher.hosts.native import require_loadable
from launcher.problems import Problem


def comfyui(folder: Path, version: str | None = "0.3.75") -> Path:
    """A folder that looks like a ComfyUI."""
    folder.mkdir(parents=True)
    (folder / "main.py").touch()
    if version is not None:
        (folder / "comfyui_version.py").write_text(f'# generated\n__version__ = "{version}"\n')
    return folder


def test_the_option_wins_over_the_environment(tmp_path):
    found = host.chosen_folder(str(tmp_path / "a"), {"COMFYUI_PATH": str(tmp_path / "b")})
    assert found == tmp_path / "a"


def test_the_environment_wins_over_the_folder_above(tmp_path):
    above = comfyui(tmp_path / "ComfyUI")
    found = host.chosen_folder(None, {"COMFYUI_PATH": str(tmp_path / "b")},
                               above / "custom_nodes" / "likeness")
    assert found == tmp_path / "b"


def test_a_pack_inside_custom_nodes_belongs_to_the_host_above(tmp_path):
    above = comfyui(tmp_path / "ComfyUI")
    assert host.chosen_folder(None, {}, above / "custom_nodes" / "likeness") == above


def test_a_pack_elsewhere_uses_the_embedded_host(tmp_path):
    assert host.chosen_folder(None, {}, tmp_path / "custom_nodes" / "likeness") is None
    assert host.chosen_folder(None, {}, tmp_path / "likeness") is None


@pytest.mark.parametrize("version", ["0.3.75", "0.3.76", "0.4.0", "0.38.1", "1.0"])
def test_the_floor_and_newer_hosts_are_accepted(tmp_path, version):
    host.require_new_enough(comfyui(tmp_path / "c", version))


@pytest.mark.parametrize("version, words", [
    ("0.3.74", "is version 0.3.74, but Likeness needs 0.3.75 or newer"),
    ("0.3.9", "is version 0.3.9, but"),
    (None, "does not say its version, so it is older than 0.3.75"),
])
def test_an_older_host_is_refused_with_both_versions(tmp_path, version, words):
    with pytest.raises(Problem, match=words):
        host.user_host(comfyui(tmp_path / "c", version))


def test_a_folder_without_comfyui_is_refused(tmp_path):
    with pytest.raises(Problem, match="no ComfyUI in .* \\(no main.py\\)"):
        host.user_host(tmp_path)


def test_a_python_without_torch_is_refused(tmp_path):
    with pytest.raises(Problem, match="is no Python with torch"):
        host.user_host(comfyui(tmp_path / "c"), str(tmp_path / "python"))


def test_the_running_python_serves_a_host_without_an_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    found = host.user_host(comfyui(tmp_path / "deep" / "c"))
    assert found.python == Path(sys.executable)


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Problem, match=f"Port {port} is taken"):
            server.require_free(port)
    server.require_free(port)


def test_a_host_that_dies_while_starting_is_quoted(tmp_path):
    (tmp_path / "main.py").write_text("import sys; sys.exit('no such frontend')")
    with pytest.raises(Problem, match="exit code 1\\): no such frontend. The whole log is"):
        server.start(Path(sys.executable), tmp_path, tmp_path / "log", cpu=True)


def test_the_pack_is_linked_once_and_follows_when_it_moves(tmp_path):
    first, second, target = tmp_path / "a", tmp_path / "b", tmp_path / "custom_nodes" / "pack"
    for source in (first, second):
        source.mkdir()
        (source / "name").write_text(source.name)
    assert link_folder(first, target) in ("link", "junction", "copy")
    link_folder(first, target)
    link_folder(second, target)
    assert (target / "name").read_text() == "b"


def test_a_folder_of_the_users_is_not_replaced_by_the_link(tmp_path):
    source, target = tmp_path / "a", tmp_path / "pack"
    source.mkdir()
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(Problem, match="is in the way"):
        link_folder(source, target)
    assert (target / "mine").exists()


@pytest.mark.parametrize("linked", [False, True], ids=["cloned there", "linked there"])
def test_a_pack_that_the_host_has_under_another_name_is_not_linked_again(tmp_path, linked):
    custom_nodes, elsewhere = tmp_path / "custom_nodes", tmp_path / "elsewhere"
    custom_nodes.mkdir()
    pack = elsewhere if linked else custom_nodes / "Likeness"
    pack.mkdir()
    if linked:
        (custom_nodes / "Likeness").symlink_to(pack)
    link_pack(custom_nodes, pack)
    assert [entry.name for entry in custom_nodes.iterdir()] == ["Likeness"]


def test_a_pack_that_is_switched_off_in_the_host_is_linked(tmp_path):
    pack, custom_nodes = tmp_path / "pack", tmp_path / "custom_nodes"
    pack.mkdir()
    custom_nodes.mkdir()
    (custom_nodes / "old.disabled").symlink_to(pack)
    link_pack(custom_nodes, pack)
    assert (custom_nodes / "comfyui-likeness").samefile(pack)


@pytest.mark.skipif(os.name == "nt", reason="stands in for Python with a shell script")
def test_the_tests_pins_are_not_installed_into_a_users_environment(tmp_path):
    python, asked = tmp_path / "python", tmp_path / "asked"
    python.write_text(f"""#!/bin/sh
echo "$@" >> '{asked}'
case "$*" in *pytest*) exit 1;; esac
""")
    python.chmod(0o755)
    with pytest.raises(Problem, match=f"run `{python} -m pip install pytest .*schedulefree` or"):
        ready_host(str(comfyui(tmp_path / "c")), str(python), tests=True)
    assert "pip install" not in asked.read_text()
    assert not (tmp_path / "c" / "custom_nodes").exists()


@pytest.mark.skipif(os.name == "nt", reason="stands in for Python with a shell script")
def test_a_missing_system_library_is_named_with_its_packages(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'OSError: libEGL.so.1: cannot open shared object file: "
                      "No such file or directory' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(Problem, match="library libEGL.so.1; install it .*libegl1 libgl1 libgles2"):
        require_loadable(python)
