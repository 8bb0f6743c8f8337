"""One request with one Python HTTP client: `python_client.py CLIENT HOST PATH [CA_FILE]`; prints status and digest.

Without a CA file the client trusts what it trusts by default. Each client is imported only when it is the one asked for.
"""

import hashlib
import ssl
import sys
from importlib import import_module

TIMEOUT = 8


def _context(ca: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)


def with_urllib(host: str, path: str, ca: str | None) -> tuple[int, bytes]:
    request = import_module("urllib.request")
    with request.urlopen(f"https://{host}{path}", timeout=TIMEOUT, context=_context(ca) if ca else None) as response:
        return response.status, response.read()


def with_requests(host: str, path: str, ca: str | None) -> tuple[int, bytes]:
    requests = import_module("requests")
    with requests.Session() as session:
        # REQUESTS_CA_BUNDLE would win over a session's `verify`; a request's own wins over both.
        response = session.get(f"https://{host}{path}", timeout=TIMEOUT, verify=ca)
        return response.status_code, response.content


def with_httpx(host: str, path: str, ca: str | None) -> tuple[int, bytes]:
    httpx = import_module("httpx")
    with httpx.Client(verify=_context(ca) if ca else True, http2=True, timeout=TIMEOUT) as client:
        response = client.get(f"https://{host}{path}")
        return response.status_code, response.content


def with_aiohttp(host: str, path: str, ca: str | None) -> tuple[int, bytes]:
    aiohttp, asyncio = import_module("aiohttp"), import_module("asyncio")

    async def get() -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"https://{host}{path}", ssl=_context(ca) if ca else True) as response,
        ):
            return response.status, await response.read()

    return asyncio.run(get())


def with_grpc(host: str, path: str, ca: str | None) -> tuple[int, bytes]:
    grpc = import_module("grpc")
    roots = None
    if ca:
        with open(ca, "rb") as file:  # noqa: PTH123 -- one read, no pathlib in a client that is timed
            roots = file.read()
    with grpc.secure_channel(f"{host}:443", grpc.ssl_channel_credentials(root_certificates=roots)) as channel:
        say = channel.unary_unary("/lab.Echo/Say")
        return 0, say(b"a message to be said again " * 100, timeout=TIMEOUT)


def main(client: str, host: str, path: str, ca: str | None = None) -> None:
    status, body = globals()[f"with_{client}"](host, path, ca)
    print(status, len(body), hashlib.sha256(body).hexdigest())


if __name__ == "__main__":
    main(*sys.argv[1:])
