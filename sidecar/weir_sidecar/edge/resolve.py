"""Addresses of the sidecar's own peer, as the system finds them: hosts file, search domains and all (getaddrinfo(3)).

In a thread that ends with its answer: the loop must not wait for DNS, and a pool would keep a thread for ever.
"""

import asyncio
import socket
import threading


async def addresses(loop: asyncio.AbstractEventLoop, host: str, port: int, seconds: float) -> list[str]:
    """The addresses of `host`, best first. Raises `OSError` (`TimeoutError` after `seconds`)."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return [host]
    found: asyncio.Future[list[str]] = loop.create_future()
    try:
        # A daemon: the process does not wait for it when it ends.
        threading.Thread(target=_look_up, args=(loop, found, host, port), daemon=True).start()
    except RuntimeError as error:
        raise OSError(f"no thread to look {host} up: {error}") from error
    async with asyncio.timeout(seconds):
        return await found


def _look_up(loop: asyncio.AbstractEventLoop, found: "asyncio.Future[list[str]]", host: str, port: int) -> None:
    try:
        # Bytes: text would have the codec for internationalised names imported.
        entries = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
        result: list[str] | OSError = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    except UnicodeEncodeError:
        result = OSError(f"{host!r} is no name")
    except OSError as error:
        result = error
    try:
        loop.call_soon_threadsafe(_settle, found, result)
    except RuntimeError:
        return  # the loop is closed: nobody waits


def _settle(found: "asyncio.Future[list[str]]", result: list[str] | OSError) -> None:
    if found.done():
        return
    if isinstance(result, OSError):
        found.set_exception(result)
    else:
        found.set_result(result)
