"""What a server says against a prompt, as exceptions with one sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..problems import Problem

Prompt = dict[str, dict[str, Any]]  # node id -> {class_type, inputs, _meta}


class Unreachable(Problem):
    """Nobody answers at the server's address."""

    code = 6


class Forgotten(Problem):
    """The server no longer knows a prompt that it had queued."""

    code = 6


class RejectedPrompt(Problem):
    """The server refused to queue a prompt; `answer` is its JSON."""

    code = 3

    def __init__(self, text: str, answer: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.answer = answer


class FailedPrompt(Problem):
    """A node raised while the prompt ran; `details` is the server's execution_error."""

    code = 4

    def __init__(self, text: str, details: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.details = details

    @property
    def exception_type(self) -> str:
        """The exception's class as the server names it."""
        return str(self.details.get("exception_type", ""))


class InterruptedPrompt(Problem):
    """Somebody cancelled the prompt."""

    code = 5


def node_title(prompt: Prompt, node_id: str) -> str:
    """How a person knows a node: its title, else its class."""
    node = prompt.get(node_id, {})
    return node.get("_meta", {}).get("title") or node.get("class_type") or f"node {node_id}"


def rejection_sentence(prompt: Prompt, answer: Mapping[str, Any]) -> str:
    """Turn the server's refusal of a prompt into one sentence, naming node and input."""
    for node_id, report in (answer.get("node_errors") or {}).items():
        for error in report.get("errors", ()):
            details = str(error.get("details") or "").strip()
            message = str(error.get("message") or "invalid").strip().rstrip(".")
            allowed = error.get("extra_info", {}).get("input_config")
            if error.get("type") == "value_not_in_list" and allowed:
                details = _not_in_list(error["extra_info"], allowed)
            text = f"{message}: {details}" if details else message
            return f"The host refused `{node_title(prompt, node_id)}`: {text.rstrip('.')}."
    error = answer.get("error") or {}
    if not isinstance(error, Mapping):
        return f"The host refused the workflow: {error}"
    message = str(error.get("message") or "no reason given").strip().rstrip(".")
    details = str(error.get("details") or "").strip()
    if details and details != message and "Traceback" not in details:
        message = f"{message} ({details})"
    return f"The host refused the workflow: {message}."


def _not_in_list(info: Mapping[str, Any], config: Any) -> str:
    values = config[0] if isinstance(config, (list, tuple)) and config else ()
    if isinstance(values, str):  # newer hosts: ["COMBO", {"options": [...]}]
        values = config[1].get("options", ()) if len(config) > 1 else ()
    name, value = info.get("input_name"), info.get("received_value")
    known = ", ".join(str(item) for item in list(values)[:20]) or "nothing"
    return f"`{name}` is `{value}`, but there is {known}"


def failure_sentence(prompt: Prompt, details: Mapping[str, Any]) -> str:
    """Turn an execution_error into one sentence, naming the node."""
    title = node_title(prompt, str(details.get("node_id", "")))
    text = " ".join(str(details.get("exception_message") or "").split())
    kind = str(details.get("exception_type") or "error").rsplit(".", 1)[-1]
    if not text:
        return f"`{title}` failed with {kind}; the host's log says more."
    known = kind in ("LikenessError", "MissingModelError", "HostTooOldError", "ValueError")
    return f"`{title}` failed: {text if known else f'{kind}: {text}'}"
