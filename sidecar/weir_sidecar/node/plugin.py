"""What the CNI plugin is answered. A request may enter the pod's network namespace; who called sees to it that it leaves.

ADD twice changes nothing. DEL takes no rules away: they hold until the namespace ends, so a pod that is being taken down
sends nothing past them.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.netfilter.literals import RulesetError
from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.node.cni import CNIError, Code, Command, Request, Sandbox
from weir_sidecar.node.records import Record, Records


class Listen(Protocol):
    """Opens the pod's hand-over socket, in the namespace that was entered, and gives it to the agent."""

    def __call__(self, record: Record, *, again: bool) -> None:
        """`again`: an ADD before may have done so."""


class Edge(msgspec.Struct, frozen=True):
    """What is outside: the API server, the kernel in the pod's namespace, and the agent that listens for the pod."""

    config_of: Callable[[Sandbox], SidecarConfig | None]
    """Of a pod that is to be captured, by what the API server says of it. Raises `CNIError`."""
    enter: Callable[[str], None]
    """Into the network namespace at a path. Raises FileNotFoundError and `CaptureError`."""
    apply: Callable[[SidecarConfig], None]
    check: Callable[[SidecarConfig], tuple[str, ...]]
    listen: Listen
    forget: Callable[[str], None]
    """Close it."""


def answer(request: Request, records: Records, edge: Edge) -> bytes:
    """What to print. Raises `CNIError`."""
    match request.command:
        case Command.ADD:
            result = _previous(request)
            _add(request, records, edge)
            return result
        case Command.CHECK:
            _check(request, records, edge)
        case Command.DEL:
            _forget(request.container_id, records, edge)
        case Command.GC:
            for container_id in set(records.all()) - _valid(request):
                _forget(container_id, records, edge)
        case Command.STATUS:
            pass  # that there is an answer is the answer
    return b""


def _add(request: Request, records: Records, edge: Edge) -> None:
    sandbox = request.sandbox
    config = None if sandbox is None else edge.config_of(sandbox)
    if sandbox is None or config is None:
        return
    name = f"pod {sandbox.namespace}/{sandbox.name}"
    _enter(request, name, edge)
    try:
        edge.apply(config)
        missing = edge.check(config)
    except RulesetError as error:
        raise CNIError(
            Code.INVALID_CONFIGURATION, f"{name}: the config asks for rules that cannot be: {error}; correct the policy"
        ) from error
    except CaptureError as error:
        raise CNIError(Code.TRY_AGAIN_LATER, f"{name}: the rules could not be loaded: {error}") from error
    if missing:
        raise CNIError(Code.TRY_AGAIN_LATER, f"{name}: the rules were loaded and are not there: {'; '.join(missing)}")
    record = Record(request.container_id, request.netns, sandbox.namespace, sandbox.name, sandbox.uid, config)
    again = records.read(request.container_id) is not None
    records.write(record)
    edge.listen(record, again=again)


def _check(request: Request, records: Records, edge: Edge) -> None:
    sandbox = request.sandbox
    record = records.read(request.container_id)
    if record is None:
        if sandbox is not None and edge.config_of(sandbox) is not None:
            raise CNIError(
                Code.NOT_CAPTURED,
                f"pod {sandbox.namespace}/{sandbox.name} is to be captured, and was started without: make it anew",
            )
        return
    name = f"pod {record.namespace}/{record.name}"
    _enter(request, name, edge)
    try:
        missing = edge.check(record.config)
    except CaptureError as error:
        raise CNIError(Code.TRY_AGAIN_LATER, f"{name}: capture could not be looked at: {error}") from error
    if missing:
        raise CNIError(Code.NOT_CAPTURED, f"{name}: {'; '.join(missing)}")


def _enter(request: Request, name: str, edge: Edge) -> None:
    try:
        edge.enter(request.netns)
    except FileNotFoundError as error:
        raise CNIError(
            Code.INVALID_ENVIRONMENT,
            f"{name}: CNI_NETNS: {request.netns} is no network namespace that the agent sees; it looks below /run/netns",
        ) from error
    except CaptureError as error:
        raise CNIError(Code.INVALID_ENVIRONMENT, f"{name}: CNI_NETNS {request.netns}: {error}") from error


def _forget(container_id: str, records: Records, edge: Edge) -> None:
    records.remove(container_id)
    edge.forget(container_id)


def _valid(request: Request) -> set[str]:
    valid = request.configuration.valid
    if valid is None:
        raise CNIError(Code.INVALID_CONFIGURATION, "cni.dev/valid-attachments is missing: GC must say what is in use")
    return {one.container_id for one in valid}


def _previous(request: Request) -> bytes:
    """The result so far, untouched; one that says no version gets ours."""
    given = bytes(request.configuration.previous)
    try:
        result = msgspec.json.decode(given, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError as error:
        raise CNIError(Code.DECODING_FAILURE, f"prevResult cannot be read: {error}") from error
    if "cniVersion" in result:
        return given
    version = msgspec.Raw(msgspec.json.encode(request.configuration.version))
    return msgspec.json.encode({"cniVersion": version, **result})
