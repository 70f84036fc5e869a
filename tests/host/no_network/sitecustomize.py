"""Refuses every connection beyond this machine, and writes down those that the pack has caused.

Python loads this by itself where its folder is in PYTHONPATH.
"""

import ipaddress
import os
import sys
import traceback

_LOG = os.environ.get("LIKENESS_NETWORK_LOG")
_PACK = os.environ.get("LIKENESS_PACK", "")


def _is_local(host):
    if host in ("", None, "localhost", b"localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False  # a name that somebody wants looked up
    return address.is_loopback or address.is_unspecified


def _hook(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a path on this machine
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if _is_local(host):
        return
    stack = "".join(traceback.format_stack())
    if _PACK in stack or "comfyui-likeness" in stack:
        with open(_LOG, "a", encoding="utf-8") as log:
            log.write(f"{event} {host}\n{stack}\n")
    raise OSError(f"connections beyond this machine are refused here: {host}")


if _LOG:
    sys.addaudithook(_hook)
