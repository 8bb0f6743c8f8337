"""Flow records of captured pods, from the logs of their sidecars."""

from collections.abc import Iterator

import msgspec

from weir_cli.cluster.kubectl import Kubectl
from weir_operator.cluster.facts import CAPTURED_LABEL, SIDECAR

_MOST_PODS = "100"


class Line(msgspec.Struct, frozen=True):
    """A record as it was written, and the pod whose it is; None: there is only one."""

    record: bytes
    pod: str | None = None


def records(kubectl: Kubectl, pod: str | None, selector: str | None, last: int, *, follow: bool) -> Iterator[Line]:
    """The last records of a pod, of the pods that `selector` finds, or of all captured pods of the namespace.

    Without `follow` they are in order of time. Raises `KubectlError`.
    """
    of = [pod] if pod is not None else ["--selector", selector or f"{CAPTURED_LABEL}=true"]
    options = ["--container", SIDECAR, "--tail", str(last), "--prefix", "--max-log-requests", _MOST_PODS]
    found = _read(kubectl.lines("logs", *of, *options, *(["--follow"] if follow else [])))
    if follow:
        return found
    return iter(sorted(found, key=_time)[-last:] if last else ())


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
