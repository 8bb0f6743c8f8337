"""The last line of a run: how many flows there were, and what was done with them."""

import http.client
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from weir_cli.pod import namespace
from weir_cli.pod.names import Pod
from weir_sidecar.contract.flow import Decision
from weir_sidecar.contract.request import IS_REQUEST

_IN_RECORD = re.compile(rb'"decision":"([a-z]+)"')
_IN_METRICS = re.compile(r'^weir_flows_total\{[^}]*decision="([a-z]+)"[^}]*\} (\d+)', re.MULTILINE)
_WORDS = {Decision.INTERCEPT: "intercepted", Decision.PASSTHROUGH: "passed through", Decision.DENY: "denied"}
_TIMEOUT = 1.0


def from_lines(lines: Iterable[bytes]) -> Counter[str]:
    """The decisions of flow records, one JSON object a line; those about requests in them are not counted."""
    flows = (line for line in lines if not line.startswith(IS_REQUEST))
    return Counter(found[1].decode() for line in flows if (found := _IN_RECORD.search(line)))


def from_metrics(text: str) -> Counter[str]:
    """The decisions that the sidecar's metrics count."""
    total: Counter[str] = Counter()
    for decision, count in _IN_METRICS.findall(text):
        total[decision] += int(count)
    return total


def from_record(path: Path, start: int) -> Counter[str] | None:
    """The decisions in the record file from byte `start` on; None when it is no file to read again."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(start)
        return from_lines(file)


def from_admin(pod: Pod, port: int) -> Counter[str] | None:
    """The decisions counted by the sidecar that runs now; None when it does not answer."""
    with namespace.entered(pod.netns_path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        try:
            connection.request("GET", "/metrics")
            return from_metrics(connection.getresponse().read().decode())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def sentence(counted: Mapping[str, int]) -> str:
    """One line for people."""
    total = sum(counted.values())
    parts = [f"{counted[decision]} {word}" for decision, word in _WORDS.items() if counted.get(decision)]
    return f"{total} flow{'' if total == 1 else 's'}" + (f": {', '.join(parts)}" if parts else "")
