"""A gRPC server and a client of it, of the grpcio package: every kind of call, without generated code.

`python -m lab.grpc_peer serve CERTIFICATE PORT` prints `ready`; `… ask HOST:PORT` prints what each call came to, as JSON.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc

SERVICE = "lab.Peer"
type Messages = Iterator[bytes]


def _echo(message: bytes, _: grpc.ServicerContext) -> bytes:
    return message


def _count(messages: Messages, _: grpc.ServicerContext) -> bytes:
    return b"%d" % sum(len(message) for message in messages)


def _many(message: bytes, _: grpc.ServicerContext) -> Messages:
    for number in range(int(message)):
        yield b"%d" % number * 1000


def _talk(messages: Messages, _: grpc.ServicerContext) -> Messages:
    yield from messages


def _slow(message: bytes, context: grpc.ServicerContext) -> bytes:
    while context.is_active():
        time.sleep(0.02)
    return message


def _seen(_: bytes, context: grpc.ServicerContext) -> bytes:
    """The metadata that came, but for what names the client's build."""
    found = ((key, value) for key, value in context.invocation_metadata() if key.startswith("x-"))
    return json.dumps(dict(found), sort_keys=True).encode()


def _fail(_: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata((("why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    raise AssertionError


def serve(certificate: str, port: str) -> None:
    """Serve on all addresses until standard input ends."""
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(_echo),
        "Count": grpc.stream_unary_rpc_method_handler(_count),
        "Many": grpc.unary_stream_rpc_method_handler(_many),
        "Talk": grpc.stream_stream_rpc_method_handler(_talk),
        "Slow": grpc.unary_unary_rpc_method_handler(_slow),
        "Fail": grpc.unary_unary_rpc_method_handler(_fail),
        "Denied": grpc.unary_unary_rpc_method_handler(_echo),
        "Cut": grpc.unary_unary_rpc_method_handler(_echo),
        "Late": grpc.unary_unary_rpc_method_handler(_echo),
        "Seen": grpc.unary_unary_rpc_method_handler(_seen),
    }
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    pem = Path(certificate).read_bytes()
    server.add_secure_port(f"0.0.0.0:{port}", grpc.ssl_server_credentials([(pem, pem)]))
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(0)


def _told(call: Callable[[], object]) -> object:
    """What a call returns, or the name and text of its status."""
    try:
        return call()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]


def _middle(channel: grpc.Channel) -> object:
    """A refused call in the middle of one that goes on."""
    box: list[bytes] = []
    wait = iter(box.pop, None)

    def messages() -> Messages:
        yield b"before"
        while not box:
            time.sleep(0.005)
        yield next(wait)

    talk = channel.stream_stream(f"/{SERVICE}/Talk")(messages(), timeout=20)
    first = next(talk)
    refused = _told(lambda: channel.unary_unary(f"/{SERVICE}/Denied")(b"x", timeout=20))
    box.append(b"after")
    return [first.decode(), refused, *(message.decode() for message in talk)]


def _seen_by_both(channel: grpc.Channel) -> object:
    """The metadata that the server got, and that the client gets of it."""
    sent = (("x-mine", "kept"), ("x-hidden", "removed"))
    answer, call = channel.unary_unary(f"/{SERVICE}/Seen").with_call(b"", timeout=20, metadata=sent)
    got = {key: value for key, value in call.initial_metadata() if key.startswith("x-")}
    return [json.loads(answer), got]


def _cancelled(channel: grpc.Channel) -> object:
    call = channel.unary_stream(f"/{SERVICE}/Many")(b"100000000", timeout=20)
    next(call)
    call.cancel()
    return _told(lambda: list(call))


def ask(target: str) -> None:
    """Make every kind of call over one connection."""
    roots = None  # as an application has them: from the environment
    with grpc.secure_channel(target, grpc.ssl_channel_credentials(roots)) as channel:
        unary, peer = channel.unary_unary, f"/{SERVICE}/"
        trailers = _told(lambda: unary(f"{peer}Fail")(b"", timeout=20))
        calls: dict[str, Callable[[], object]] = {
            "unary": lambda: unary(f"{peer}Echo")(b"hello", timeout=20).decode(),
            "large": lambda: len(unary(f"{peer}Echo")(b"x" * 3_000_000, timeout=20)),
            "client": lambda: channel.stream_unary(f"{peer}Count")(itertools.repeat(b"x" * 1000, 200)).decode(),
            "server": lambda: sum(map(len, channel.unary_stream(f"{peer}Many")(b"200", timeout=20))),
            "both": lambda: b"".join(channel.stream_stream(f"{peer}Talk")(iter([b"a", b"b"]), timeout=20)).decode(),
            "deadline": lambda: unary(f"{peer}Slow")(b"", timeout=0.3),
            "cancelled": lambda: _cancelled(channel),
            "denied": lambda: unary(f"{peer}Denied")(b"", timeout=20).decode(),
            "cut": lambda: unary(f"{peer}Cut")(b"", timeout=20).decode(),
            "late": lambda: unary(f"{peer}Late")(b"late", timeout=0.3).decode(),
            "seen": lambda: _seen_by_both(channel),
            "middle": lambda: _middle(channel),
        }
        print(json.dumps({"failed": trailers} | {name: _told(call) for name, call in calls.items()}))


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
