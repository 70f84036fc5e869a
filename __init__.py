"""Likeness: ten selfies in, studio headshots out, and a number that says whether it is you."""

from __future__ import annotations

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint():
    # Imported here, not above: pytest and registry scanners import this file outside ComfyUI.
    from .nodes import LikenessExtension

    return LikenessExtension()
