"""Our entry in a network configuration list. Pure: a file's text in, another text out. CNI specification, section 1."""

from typing import Any

import msgspec

from weir_sidecar.node.cni import VERSIONS

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


def wrapped(text: bytes) -> bytes:
    """A list of one plugin's configuration and our entry. Raises `ConflistError`.

    As libcni makes a list of such a file itself (`ConfListFromConf`).
    """
    plugin = _decode(text)
    if not isinstance(plugin.get("type"), str):
        raise ConflistError("it is the configuration of no plugin: it has no type")
    version = plugin.get("cniVersion", "0.1.0")
    if version not in VERSIONS:
        raise ConflistError(f"its cniVersion is {version!r}, and chained plugins can be of {', '.join(VERSIONS)}")
    return _write({"cniVersion": version, "name": plugin.get("name", "")}, [plugin, _ENTRY])


def without_entry(text: bytes) -> bytes:
    """The list without our entry; the same bytes where there is none. Raises `ConflistError`."""
    conflist, plugins = _read(text)
    others = [plugin for plugin in plugins if not _is_ours(plugin)]
    return text if len(others) == len(plugins) else _write(conflist, others)


def _is_ours(plugin: object) -> bool:
    return isinstance(plugin, dict) and plugin.get("type") == TYPE


def _read(text: bytes) -> tuple[dict[str, Any], list[Any]]:
    conflist = _decode(text)
    plugins = conflist.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        raise ConflistError("it has no list of plugins")
    return conflist, plugins


def _decode(text: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ConflistError(f"no JSON object: {error}") from error


def _write(conflist: dict[str, Any], plugins: list[Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode({**conflist, "plugins": plugins}), indent=2) + b"\n"
