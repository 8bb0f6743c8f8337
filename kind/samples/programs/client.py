"""Calls a URL every few seconds; prints one JSON line for each call: its status, and who signed the certificate.

With TIMES it ends after so many calls, with status 1 if one failed. Once a call succeeds there is a file /tmp/ok.
"""

import argparse
import http.client
import json
import ssl
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

PAUSE = 5.0


def call(url: str, roots: str | None) -> tuple[bytes, dict[str, object]]:
    """The body, and what there is to tell."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=roots)
        connection = http.client.HTTPSConnection(parts.netloc, timeout=20, context=context)
    try:
        connection.connect()
        told: dict[str, object] = {}
        if isinstance(connection.sock, ssl.SSLSocket):
            issuer: Any = (connection.sock.getpeercert() or {}).get("issuer", ())
            told["issuer"] = dict(part[0] for part in issuer).get("commonName")
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        return answer.read(), {"status": answer.status, **told}
    finally:
        connection.close()


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("times", type=int, nargs="?", default=0)
    parser.add_argument("--roots", help="trust this file and nothing else, as an application does that pins its CA")
    parser.add_argument("--save", type=Path, help="where the body goes")
    args = parser.parse_args()
    failed = number = 0
    while not args.times or number < args.times:
        if number:
            time.sleep(PAUSE)
        number += 1
        try:
            body, told = call(args.url, args.roots)
            Path("/tmp/ok").touch()  # noqa: S108  # The container's own, for its readiness probe.
            if args.save:
                args.save.write_bytes(body)
        except (OSError, http.client.HTTPException) as error:
            failed += 1
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"client": "python", "url": args.url, **told}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
