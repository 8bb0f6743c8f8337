"""What is done to an application's container: environment variables and mounts, so that its programs trust the CA."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from weir_operator.compile import Injection
from weir_operator.injection import ours, stores
from weir_operator.injection.shape import listed
from weir_operator.injection.variables import (
    BUNDLE_VARIABLES,
    JAVA,
    TrustFiles,
    java_option,
    names_trust_store,
    variables,
)
from weir_sidecar.contract import pod as paths

FILES = TrustFiles(
    bundle=f"{paths.TRUST}/{paths.BUNDLE}",
    authority=f"{paths.TRUST}/{paths.CA}",
    java=f"{paths.TRUST}/{paths.TRUST_STORE}",
    directory=f"{paths.TRUST}/{paths.CERTS}",
)
_OURS = variables(FILES)
_JAVA_OPTION = java_option(FILES)

type Entry = Mapping[str, Any]
"""An item of a container's `env` or `volumeMounts`."""


def equip(
    container: Mapping[str, Any], injection: Injection, volumes: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The container with what `injection` asks for, and what its owner should know. `volumes` are the pod's, by name."""
    bare = without_ours(container)
    hidden = stores.hides_trust(bare, volumes)
    if hidden is not None:
        text = (
            f"mounts a volume of its own at {hidden}, so Weir cannot put the CA there: its programs will not trust it"
        )
        return bare, (_about(container, text),)
    mounts, mount_warnings = _mounts(bare, injection)
    env, env_warnings = _environment(bare, injection, {mount["mountPath"] for mount in mounts})
    own = _fields(bare, env=env, volumeMounts=[*listed(bare, "volumeMounts"), *mounts])
    return own, tuple(_about(container, text) for text in (*mount_warnings, *env_warnings))


def without_ours(container: Mapping[str, Any]) -> dict[str, Any]:
    """The container as it was before an earlier call."""
    mounts = [mount for mount in listed(container, "volumeMounts") if mount["name"] != ours.TRUST]
    env = [entry for one in listed(container, "env") for entry in _before(one)]
    return _fields(container, env=env, volumeMounts=mounts)


def _before(entry: Entry) -> Iterator[Entry]:
    """What a variable was before us; nothing if it is ours."""
    if entry["name"] != JAVA:
        if entry.get("value") is None or entry["value"] != _OURS.get(entry["name"]):
            yield entry
    elif "valueFrom" in entry:
        yield entry
    elif options := _without_option(entry.get("value") or ""):
        yield {**entry, "value": options}


def _without_option(options: str) -> str:
    return options.removesuffix(_JAVA_OPTION).removesuffix(" ") if options.endswith(_JAVA_OPTION) else options


def _mounts(container: Mapping[str, Any], injection: Injection) -> tuple[list[dict[str, Any]], list[str]]:
    own = {stores.mount_path(mount): mount["mountPath"] for mount in listed(container, "volumeMounts")}
    mounts: list[dict[str, Any]] = [{"name": ours.TRUST, "mountPath": paths.TRUST, "readOnly": True}]
    warnings = []
    for store in stores.wanted(injection):
        kept = store.kept_for(own)
        if kept is None:
            mounts += [
                {"name": ours.TRUST, "mountPath": place, "subPath": store.file, "readOnly": True}
                for place in store.places
            ]
        else:
            warnings.append(f"mounts {own[kept]} itself: the CA is not put into {store.what}")
    return mounts, warnings


def _environment(
    container: Mapping[str, Any], injection: Injection, covered: Collection[str]
) -> tuple[list[Entry], list[str]]:
    """The variables, ours first: the container's own may refer to them."""
    own = listed(container, "env")
    foreign: list[str] = []
    if injection.environment:
        wanted = variables(FILES, () if injection.override else {entry["name"] for entry in own})
        foreign = [entry["name"] for entry in own if _is_foreign(entry, wanted, covered)]
        own = [*_entries(wanted), *(entry for entry in own if entry["name"] not in wanted)]
    if injection.java:
        with_java = _with_java(own, injection, hidden=bool(container.get("envFrom")))
        foreign += [JAVA] if with_java is None else []
        own = own if with_java is None else with_java
    return own, [_kept_text(dict.fromkeys(foreign))] if foreign else []


def _with_java(env: list[Entry], injection: Injection, *, hidden: bool) -> list[Entry] | None:
    """The variables with the options for JVMs, added in place: they may refer to variables before them.

    None: not to be touched, because they name a trust store, or cannot be seen and so not added to; `hidden`: there may
    be some that `env` would replace.
    """
    at = max((index for index, entry in enumerate(env) if entry["name"] == JAVA), default=None)
    if at is None:
        return None if hidden and not injection.override else [*_entries({JAVA: _JAVA_OPTION}), *env]
    options = env[at].get("value")
    if options is not None and _JAVA_OPTION in options:
        return env
    if not injection.override and (options is None or names_trust_store(options)):
        return None
    if options is None:
        return [*_entries({JAVA: _JAVA_OPTION}), *(entry for entry in env if entry["name"] != JAVA)]
    return [*env[:at], {"name": JAVA, "value": f"{options} {_JAVA_OPTION}"}, *env[at + 1 :]]


def _entries(values: Mapping[str, str]) -> list[Entry]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _is_foreign(entry: Entry, wanted: Collection[str], covered: Collection[str]) -> bool:
    """Whether a variable leads programs to roots without the CA."""
    return entry["name"] in BUNDLE_VARIABLES and entry["name"] not in wanted and entry.get("value") not in covered


def _kept_text(names: Iterable[str]) -> str:
    return (
        f"keeps its own {', '.join(names)} (env or envFrom): programs that read it may not trust the CA;"
        " injection.override: true replaces it"
    )


def _about(container: Mapping[str, Any], text: str) -> str:
    return f"container {container['name']!r} {text}"


def _fields(container: Mapping[str, Any], **lists: list[Any]) -> dict[str, Any]:
    """The container with these lists; an empty one where there was none is left out."""
    return {**container, **{name: items for name, items in lists.items() if items or name in container}}
