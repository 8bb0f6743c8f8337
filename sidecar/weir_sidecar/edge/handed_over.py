"""The sidecar's end of the hand-over (`contract.handover`): sockets from the node's agent, for a process without capabilities.

The address that the agent listens on could be taken by another process of the pod while the agent restarts. So who listens
must be the node's root; what comes is looked at, since whoever could make it had the capability that we lack; and the key
never goes over the connection but in the pod's first `Claim`.
"""

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterable

import msgspec

from weir_sidecar.contract import handover
from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.edge.icmp import Sockaddr, Unreachable, family_of
from weir_sidecar.edge.listeners import ListenError, Listeners
from weir_sidecar.edge.syn_tap import SynTap

_IPV6_TRANSPARENT = 75
_FAMILIES = (socket.AF_INET, socket.AF_INET6)

# Seconds. While the pod starts there is nothing else to do; while it runs, the loop that serves flows waits.
_START_PATIENCE = 60.0
_RETRY = 0.25
_START_TIMEOUT = 10.0
_REPLY_TIMEOUT = 0.25
_REPLY_PAUSE = 2.0
"""An agent that was found to be away is not asked again for so long: each time the loop that serves flows waits."""

_CLAIM_PATIENCE = 5.0

_AWAY = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.EAGAIN, errno.ETIMEDOUT})
_CREDENTIALS = struct.Struct("=iII")
_ROOT = frozenset({0, 65534})
"""The node's root as this process may see it: in a pod with users of its own nobody is (user_namespaces(7))."""


def claim(key: bytes) -> None:
    """Have the agent know this key as the pod's. Waits for an agent that is away, for seconds. Raises OSError."""
    deadline = time.monotonic() + _CLAIM_PATIENCE
    while True:
        try:
            _ask(handover.Claim(key), key, _START_TIMEOUT)
        except OSError as error:
            if error.errno not in _AWAY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY)
        else:
            return


class HandedOver:
    """Asks the agent for each socket when it is wanted, with the pod's key.

    `say` is told once when the agent has to be waited for.
    """

    def __init__(self, config: SidecarConfig, key: bytes, say: Callable[[str], None]) -> None:
        self._config = config
        self._key = key
        self._say = say
        self._kept: dict[tuple[str, int], socket.socket] = {}
        self._ask_at = 0.0

    def listeners(self) -> Listeners:
        """See `Sockets`. Waits for an agent that is away, a minute at most."""
        given = self._patiently(handover.Listeners())
        tcp = tuple(sock for sock in given if sock.type == socket.SOCK_STREAM)
        udp = tuple(sock for sock in given if sock.type == socket.SOCK_DGRAM)
        made = Listeners(tcp=tcp, udp=udp, ipv6=len(tcp) == len(_FAMILIES))
        ports = self._config.ports
        right = [sock.getsockname()[1] == ports.tcp for sock in tcp] + [
            sock.getsockname()[1] == ports.udp for sock in udp
        ]
        if not tcp or len(tcp) != len(udp) or not all(right) or not all(map(_is_transparent, given)):
            made.close()
            raise ListenError(
                "the sockets that were handed over are no transparent listeners: another process of this pod has taken the"
                " address of the node's agent; make the pod anew"
            )
        return made

    def tap(self) -> SynTap:
        """See `Sockets`."""
        return SynTap({int(sock.family): sock for sock in self._patiently(handover.Tap())})

    def unreachable(self) -> Unreachable:
        """See `Sockets`."""
        return Unreachable({sock.family: sock for sock in self._patiently(handover.Unreachable())})

    def foresee(self, sources: Iterable[Sockaddr]) -> None:
        """Have sockets at hand to answer from these addresses, also while the agent is away. Tells what cannot be had."""
        for source in sources:
            try:
                self._kept[source[:2]] = self._ask_reply(source, _START_TIMEOUT)
            except OSError as error:
                self._say(f"no socket to answer from {source[0]} port {source[1]} was handed over: {error.strerror}")

    def reply(self, source: Sockaddr) -> socket.socket:
        """See `Sockets`. While the agent is away: EHOSTDOWN, for a source that was not foreseen."""
        kept = self._kept.get(source[:2])
        if kept is not None:
            return kept.dup()
        if time.monotonic() < self._ask_at:
            raise OSError(errno.EHOSTDOWN, "the node's agent was away a moment ago")
        try:
            return self._ask_reply(source, _REPLY_TIMEOUT)
        except OSError as error:
            if error.errno not in _AWAY:
                raise
            self._ask_at = time.monotonic() + _REPLY_PAUSE
            raise OSError(errno.EHOSTDOWN, f"the node's agent is away: {error.strerror}") from error

    def _ask_reply(self, source: Sockaddr, timeout: float) -> socket.socket:
        given = _ask(handover.Reply(source[0], source[1]), self._key, timeout)
        if len(given) != 1 or given[0].family != family_of(source) or given[0].getsockname()[:2] != source[:2]:
            for sock in given:
                sock.close()
            raise OSError(errno.EPROTO, "not the socket that was asked for")
        return given[0]

    def _patiently(self, request: handover.Request) -> list[socket.socket]:
        deadline = time.monotonic() + _START_PATIENCE
        waiting = False
        while True:
            try:
                return _ask(request, self._key, _START_TIMEOUT)
            except OSError as error:
                if error.errno == errno.ENOKEY:
                    # The init container found no agent, or no rules yet.
                    _ask(handover.Claim(self._key), self._key, _START_TIMEOUT)
                    continue
                if error.errno not in _AWAY or time.monotonic() > deadline:
                    raise ListenError(
                        f"the node's agent did not hand over sockets: {error.strerror}; the DaemonSet weir-node runs it, and"
                        " it must have set up this pod when the pod was made"
                    ) from error
                if not waiting:
                    self._say(f"waiting for the node's agent to hand over sockets: {error.strerror}")
                waiting = True
            time.sleep(_RETRY)


def _ask(request: handover.Request, key: bytes, timeout: float) -> list[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(handover.ADDRESS)
            _require_root(connection)
            nonce = connection.recv(handover.NONCE_BYTES)
            if not nonce:
                raise OSError(errno.ECONNRESET, "it does not answer this user")
            connection.send(handover.seal(key, nonce, msgspec.json.encode(request)))
            data, descriptors, _, _ = socket.recv_fds(
                connection, handover.MAX_BYTES, handover.MAX_SOCKETS, socket.MSG_CMSG_CLOEXEC
            )
        except TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, "no answer in time") from error
    given = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for sock in given:
        sock.setblocking(False)
    if not data:
        raise OSError(errno.ECONNRESET, "it ended without an answer")
    answer = msgspec.json.decode(data, type=handover.Answer)
    if answer.error:
        raise OSError(answer.errno or errno.EIO, answer.error)
    return given


def _require_root(connection: socket.socket) -> None:
    """Who began to listen (SO_PEERCRED, unix(7)) was the agent."""
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid not in _ROOT:
        raise OSError(
            errno.EPERM, f"a process of user {uid} has taken the address of the node's agent; make the pod anew"
        )


def _is_transparent(sock: socket.socket) -> bool:
    if sock.family == socket.AF_INET6:
        return sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT) == 1
    return sock.family == socket.AF_INET and sock.getsockopt(socket.SOL_IP, socket.IP_TRANSPARENT) == 1
