"""Requests that differ from one to the next, as those of browsers, libraries and tools do, for wrk."""

import json
from collections.abc import Iterator

from .site import HOST

COUNT = 509
"""How many before the first comes again: a prime, so that no connection of 32 gets the same few."""

_CHROME = (
    "Connection: keep-alive",
    'sec-ch-ua: "Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"',
    "sec-ch-ua-mobile: ?0",
    'sec-ch-ua-platform: "Linux"',
    "Upgrade-Insecure-Requests: 1",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-User: ?1",
    "Sec-Fetch-Dest: document",
    f"Referer: https://{HOST}/varied/before",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7",
)
_REQUESTS = (
    "User-Agent: python-requests/2.32.5",
    "Accept-Encoding: gzip, deflate",
    "Accept: application/json",
    "Connection: keep-alive",
)
_GO = ("User-Agent: Go-http-client/1.1", "Accept: application/json", "Accept-Encoding: gzip")
_CURL = ("User-Agent: curl/8.16.0", "Accept: */*")
_CLIENTS = (_CHROME, _REQUESTS, _CHROME, _GO, _CHROME, _CURL)
"""Half of them browsers, whose heads are the longest."""


def heads() -> Iterator[str]:
    """Each request as it is sent: its path, query, cookies and token are its own."""
    for number in range(COUNT):
        mixed = number * 2654435761 % (1 << 32)
        client = _CLIENTS[number % len(_CLIENTS)]
        own = [f"X-Request-ID: {mixed:08x}-{number:04x}-4000-8000-{mixed * 97:012x}"]
        if client is _CHROME:
            own += [f"Cookie: session={mixed:032x}; theme=dark; _ga=GA1.1.{mixed}.{number}; consent=all"]
        else:
            own += [f"Authorization: Bearer {mixed:064x}"]
        line = f"GET /varied/{mixed % 97}/items/{number}?page={number % 7}&q={mixed:x} HTTP/1.1"
        yield "\r\n".join((line, f"Host: {HOST}", *client, *own, "", ""))


def script() -> str:
    """The requests as wrk's script, each written once: making them would take the client's time."""
    texts = ",\n".join(json.dumps(head) for head in heads())  # in ASCII, a string of JSON is one of Lua
    return f"""\
local heads = {{\n{texts}\n}}
local at = 0
request = function()
  at = at % #heads + 1
  return heads[at]
end
"""
