"""Flow records of captured pods, from the logs of their sidecars."""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec

from weir_cli.cluster.kubectl import Kubectl
from weir_operator.cluster.facts import CAPTURED_LABEL, SIDECAR

_MOST_PODS = "100"


class Line(msgspec.Struct, frozen=True):
    """A record as it was written, and the pod whose it is; None: there is only one."""

    record: bytes
    pod: str | None = None


class Pods(msgspec.Struct, frozen=True):
    """A pod, or those with these labels, or all captured pods of the namespace."""

    kubectl: Kubectl
    pod: str | None = None
    selector: str | None = None

    @property
    def several(self) -> bool:
        """Whether more than one may be meant."""
        return self.pod is None


def records(pods: Pods, last: int | None, stack: ExitStack, *, follow: bool) -> Iterator[Line]:
    """The last records of pods (None: all there are); the stack ends it.

    Without `follow` they are in order of time. Raises `KubectlError`.
    """
    of = [pods.pod] if pods.pod is not None else ["--selector", pods.selector or f"{CAPTURED_LABEL}=true"]
    tail = str(-1 if last is None else last)
    options = ["--container", SIDECAR, "--tail", tail, "--prefix", "--max-log-requests", _MOST_PODS]
    found = _read(pods.kubectl.lines(stack, "logs", *of, *options, *(["--follow"] if follow else [])))
    if follow:
        return found
    ordered = sorted(found, key=_time)
    return iter(ordered if last is None else deque(ordered, maxlen=last))


def _read(lines: Iterator[bytes]) -> Iterator[Line]:
    """Records among the lines of a log, each with kubectl's prefix: `[pod/NAME/CONTAINER] `. Other lines are the sidecar's words."""
    for line in lines:
        prefix, found, text = line.partition(b"] ")
        if found and text.startswith(b"{"):
            yield Line(text, prefix.split(b"/")[1].decode(errors="replace"))


def _time(line: Line) -> str:
    """When a record's flow ended; what is no record comes first."""
    try:
        return msgspec.json.decode(line.record, type=_Dated).time
    except msgspec.MsgspecError:
        return ""


class _Dated(msgspec.Struct):
    time: str
