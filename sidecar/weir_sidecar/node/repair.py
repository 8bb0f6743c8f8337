"""Repair in place: pods that started while the plugin was away get what ADD would have given them, and lost rules come back.

What a pod is, is asked where ADD asks: the runtime says which sandbox is whose, and the API server what that pod is to have.
The name of a sandbox's namespace is never used twice, so what is done cannot hit another pod. A look at a pod that is as it
should be changes nothing in it. What was connected before stays as it is: rules decide on the first packet of a flow.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from weir_sidecar.netfilter.literals import RulesetError
from weir_sidecar.netsetup.errors import CaptureError
from weir_sidecar.node.cni import CNIError, Request
from weir_sidecar.node.records import Record, Records
from weir_sidecar.node.repair_cache import slipped

RETRY_SECONDS = 10.0


class Passed(Protocol):
    """Sandboxes without our rules that are left so: other pods', for good, and those that could not be repaired, for now."""

    def is_due(self, container_id: str) -> bool:
        """Whether it is to be looked at: never was, or failed `RETRY_SECONDS` ago."""

    def leave(self, container_id: str) -> None:
        """For good."""

    def failed(self, container_id: str, why: str) -> bool:
        """For now; whether that is news."""

    def keep(self, container_ids: Iterable[str]) -> None:
        """Forget all others: they have ended."""


class Edge(msgspec.Struct, frozen=True):
    """What is outside: the runtime's notes, the kernel in the pods' namespaces, and the plugin's ADD."""

    notes: Callable[[], Iterable[bytes]]
    is_there: Callable[[str], bool]
    """Whether the path is one of a network namespace still."""
    add: Callable[[Request], None]
    """As the plugin's. Raises `CNIError`, `CaptureError` and OSError."""
    is_fine: Callable[[Record], bool]
    """Whether the rules answer and the routes are there. Raises `CaptureError` and OSError."""
    load: Callable[[Record], None]
    """The rules and routes again. Raises `CaptureError`, `RulesetError` and OSError."""
    forget: Callable[[str], None]
    say: Callable[[str], None]


def find_slipped(records: Records, passed: Passed, edge: Edge) -> None:
    """Repair each pod whose sandbox was made without our plugin, if it is one to be captured."""
    known = set(records.all())
    found = [request for text in edge.notes() if (request := slipped(text)) is not None]
    passed.keep(request.container_id for request in found)
    for request in found:
        one = request.container_id
        if one not in known and passed.is_due(one) and edge.is_there(request.netns):
            _add(request, records, passed, edge)


def find_broken(records: Records, edge: Edge) -> None:
    """Load the rules of each captured pod that has lost them, and forget pods that have ended."""
    for container_id in list(records.all()):
        record = records.read(container_id)
        if record is None:
            continue
        name = f"pod {record.namespace}/{record.name}"
        try:
            if not edge.is_there(record.netns):
                _forget(container_id, records, edge)
            elif not edge.is_fine(record):
                edge.load(record)
                edge.say(f"repaired {name}: it had lost its rules")
        except (CaptureError, RulesetError, OSError) as error:
            edge.say(f"{name} has lost its rules, and cannot be repaired: {error}")


def _add(request: Request, records: Records, passed: Passed, edge: Edge) -> None:
    assert request.sandbox is not None  # `slipped` has looked
    name = f"pod {request.sandbox.namespace}/{request.sandbox.name}"
    try:
        edge.add(request)
    except (CNIError, CaptureError, OSError) as error:
        if passed.failed(request.container_id, str(error)):
            edge.say(f"{name} was started while the plugin was away, and cannot be repaired: {error}")
        return
    if records.read(request.container_id) is None:
        passed.leave(request.container_id)
    elif edge.is_there(request.netns):
        edge.say(f"repaired {name}: it was started while the plugin was away")
    else:
        _forget(request.container_id, records, edge)  # it ended meanwhile, and DEL may have come before ours


def _forget(container_id: str, records: Records, edge: Edge) -> None:
    records.remove(container_id)
    edge.forget(container_id)
