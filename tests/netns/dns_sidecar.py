"""The sidecar's UDP and DNS parts alone, for tests and benchmarks: `dns_sidecar.py CONFIG.json`.

Run as root in the pod's namespace. Opens its listeners, becomes the proxy's user, prints "ready", and then a line of
JSON for each record. Ends on SIGTERM, with the CPU it used on stderr.
"""

import asyncio
import datetime as dt
import itertools
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

from weir_sidecar.contract.config import decode
from weir_sidecar.contract.flow import FlowRecord, encode_record
from weir_sidecar.core.http_policy import RequestPolicy
from weir_sidecar.core.names import LearnedNames
from weir_sidecar.core.policy import Policy
from weir_sidecar.edge import privileges
from weir_sidecar.edge.context import EdgeContext
from weir_sidecar.edge.dns_forwarder import DNSForwarder
from weir_sidecar.edge.dns_stream import DNSStreams
from weir_sidecar.edge.icmp import Unreachable
from weir_sidecar.edge.listeners import open_listeners, original_destination
from weir_sidecar.edge.reply_sockets import ReplySockets
from weir_sidecar.edge.sockdiag import SockDiag
from weir_sidecar.edge.udp_listener import UDPDispatch, UDPListener
from weir_sidecar.edge.udp_relay import UDPRelay


def main() -> None:
    config = decode(Path(sys.argv[1]).read_bytes())
    listeners = open_listeners(config)
    unreachable = Unreachable.open()
    replies = ReplySockets()
    uids = SockDiag()
    privileges.drop(config.identity.uid, config.identity.gid)
    lines: list[bytes] = []
    ids = itertools.count()

    def record(flow: FlowRecord) -> None:
        if not lines:
            loop.call_later(0.01, flush)
        lines.append(encode_record(flow))

    def flush() -> None:
        data = b"".join(lines)
        lines.clear()
        while data:
            data = data[os.write(1, data) :]

    context = EdgeContext(
        config=config,
        decide=Policy(config).decide,
        requests=RequestPolicy(config),
        names=LearnedNames(),
        record=record,
        record_request=lambda _: None,
        now=time.monotonic,
        wall=lambda: dt.datetime.now(dt.UTC).isoformat(),
        new_id=lambda: str(next(ids)),
        uid_of=uids.uid_of,
    )
    loop = asyncio.new_event_loop()
    dns = DNSForwarder(loop, context, replies, unreachable)
    relay = UDPRelay(loop, context, replies, unreachable)
    streams = DNSStreams(loop, context)
    dispatch = UDPDispatch(context, dns, relay)
    readers = [UDPListener(loop, sock, dispatch) for sock in listeners.udp]

    def accept(listener: socket.socket) -> None:
        sock, client = listener.accept()
        sock.setblocking(False)
        streams.serve(sock, client, original_destination(sock, config))

    for listener in listeners.tcp:
        loop.add_reader(listener.fileno(), accept, listener)
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    print("ready", flush=True)
    loop.run_forever()
    for part in (*readers, dns, relay, streams):
        part.close()
    flush()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"cpu {used.ru_utime + used.ru_stime:.6f} user {used.ru_utime:.6f}", file=sys.stderr)


if __name__ == "__main__":
    asyncio.set_event_loop_policy(None)
    main()
