"""Our entry in a network configuration list. Pure: a file's text in, another text out. CNI specification, section 1."""

from typing import Any

import msgspec

TYPE = "weir-cni"
_ENTRY = {"type": TYPE}


class ConflistError(ValueError):
    """A text that is no configuration list; the text says why."""


def with_entry(text: bytes) -> bytes:
    """The list with our entry as its last; the same bytes where it has one. Raises `ConflistError`."""
    conflist, plugins = _read(text)
    if any(_is_ours(plugin) for plugin in plugins):
        return text
    return _write(conflist, [*plugins, _ENTRY])


def without_entry(text: bytes) -> bytes:
    """The list without our entry; the same bytes where there is none. Raises `ConflistError`."""
    conflist, plugins = _read(text)
    others = [plugin for plugin in plugins if not _is_ours(plugin)]
    return text if len(others) == len(plugins) else _write(conflist, others)


def _is_ours(plugin: object) -> bool:
    return isinstance(plugin, dict) and plugin.get("type") == TYPE


def _read(text: bytes) -> tuple[dict[str, Any], list[Any]]:
    try:
        conflist = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ConflistError(f"no JSON object: {error}") from error
    plugins = conflist.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        raise ConflistError("it has no list of plugins")
    return conflist, plugins


def _write(conflist: dict[str, Any], plugins: list[Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode({**conflist, "plugins": plugins}), indent=2) + b"\n"
