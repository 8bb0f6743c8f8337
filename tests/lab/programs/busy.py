"""Waits until the file /tmp/go is there, then makes RATE HTTPS requests a second for SECONDS, over four connections.

usage: HOST RATE SECONDS. Tells in one JSON line how many were made, and how many of them failed; then it waits.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import aiohttp

host, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
CONNECTIONS = 4


async def one(session, outcomes) -> None:
    try:
        async with session.get(f"https://{host}/") as answer:
            outcomes["ok" if (await answer.text()).strip() == "hello from origin" else "failed"] += 1
    except aiohttp.ClientError:
        outcomes["failed"] += 1


async def main() -> None:
    outcomes = {"ok": 0, "failed": 0}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0, began + number / rate - time.monotonic()))
                group.create_task(one(session, outcomes))
    print(json.dumps({**outcomes, "seconds": round(time.monotonic() - began, 1)}), flush=True)
    await asyncio.Event().wait()


while not Path("/tmp/go").exists():
    time.sleep(0.2)
asyncio.run(main())
