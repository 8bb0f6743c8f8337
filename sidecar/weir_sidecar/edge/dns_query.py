"""One DNS query from its first byte to its record, the same over UDP and TCP.

`admit` reads and decides it; `denial` is our own answer where the policy says no; `deliver` learns from an answer and
takes out what may not pass; `close` writes the record. Who calls them moves the bytes.
"""

import socket
from functools import lru_cache

from weir_sidecar.contract.config import DNSDenial, SidecarConfig
from weir_sidecar.contract.flow import Client, Decision, FlowError, FlowRecord, Protocol, Reason
from weir_sidecar.core.verdict import FlowFacts, Verdict
from weir_sidecar.edge.context import EdgeContext
from weir_sidecar.edge.icmp import Sockaddr
from weir_sidecar.wire import dns
from weir_sidecar.wire.dns_edit import may_bind_services, strip

DOH_CANARY = "use-application-dns.net"
"""Mozilla's: a resolver that says NXDOMAIN asks browsers not to use DNS over HTTPS by themselves."""
MALFORMED = Verdict(Decision.DENY, Reason.DNS_MALFORMED)
TIMEOUT = 10.0
"""Seconds without an answer after which a query is recorded as failed. The client is told nothing: nobody told us."""

_CANARY = Verdict(Decision.DENY, Reason.DOH_CANARY)
_RCODES = {DNSDenial.NXDOMAIN: dns.NXDOMAIN, DNSDenial.REFUSED: dns.REFUSED}
_LEARNABLE = {dns.A, dns.AAAA, dns.HTTPS, dns.ANY}
_REMEMBERED = 1024


class DNSQuery:
    """A query that has not been answered. `upstream_id` and `deadline` belong to whoever forwards it."""

    __slots__ = (
        "client", "data", "deadline", "destination", "down", "id", "question", "started", "time", "uid", "up",
        "upstream_id", "verdict",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - what is known when a query comes in
        self,
        context: EdgeContext,
        data: bytes,
        client: Sockaddr,
        destination: Sockaddr,
        question: dns.Question | None,
        *,
        stream: bool,
    ) -> None:
        self.data = data
        self.client = client
        self.destination = destination
        self.question = question
        self.started = context.now()
        self.deadline = self.started + TIMEOUT
        self.time = context.wall()
        self.id = context.new_id()
        self.uid = context.uid_of(client[:2], destination[:2], socket.IPPROTO_TCP if stream else socket.IPPROTO_UDP)
        self.up = len(data)
        self.down = 0
        self.upstream_id = 0
        self.verdict = MALFORMED if question is None else _decide(context, question.name, destination, self.uid)

    @property
    def transfer(self) -> bool:
        """Whether the answer is a zone, in as many messages as it takes (RFC 5936, RFC 1995)."""
        return self.question is not None and self.question.qtype in (dns.AXFR, dns.IXFR)


def _decide(context: EdgeContext, name: str, destination: Sockaddr, uid: int | None) -> Verdict:
    if name == DOH_CANARY and context.config.capture.dns.block_doh_canary:
        return _CANARY
    return context.decide(
        FlowFacts(protocol=Protocol.DNS, address=destination[0], port=destination[1], host=name, uid=uid)
    )


def admit(
    context: EdgeContext, data: bytes, client: Sockaddr, destination: Sockaddr, *, stream: bool
) -> DNSQuery | None:
    """Read and decide a query. None: it cannot be read, and its record is written."""
    try:
        question = dns.parse_query(data)
    except dns.MalformedDNS:
        close(context, DNSQuery(context, data, client, destination, None, stream=stream))
        return None
    return DNSQuery(context, data, client, destination, question, stream=stream)


def denial(context: EdgeContext, query: DNSQuery) -> bytes | None:
    """The answer to a denied query; None when it is not denied."""
    if query.verdict.decision is not Decision.DENY or query.question is None:
        return None
    canary = query.verdict.reason is Reason.DOH_CANARY
    rcode = dns.NXDOMAIN if canary else _RCODES[context.config.capture.dns.denial]
    query.down += len(answer := dns.refusal(query.data, query.question, rcode))
    return answer


def answers(query: DNSQuery, data: bytes) -> bool:
    """Whether `data` answers the query; its id has been compared."""
    return query.question is not None and dns.answers(data, query.data, query.question)


def deliver(context: EdgeContext, query: DNSQuery, data: bytes) -> bytes | None:
    """The answer as the client gets it: its id, and service records as the policy wants them. Learns its addresses.

    None: something must be taken out of an answer that cannot be read; it may not pass.
    """
    question = query.question
    assert question is not None
    has_question = data[4:6] == b"\0\1"
    if has_question and question.qtype in _LEARNABLE:
        packed, ttl = dns.addresses(data, question)
        if packed:
            context.names.learn(_host(question.name), map(_text, packed), ttl, context.now())
    options = context.config.capture.dns
    if (options.strip_ech or options.strip_h3) and may_bind_services(data):
        try:
            end = question.end if has_question else dns.HEADER_SIZE
            data = strip(data, end, ech=options.strip_ech, h3=options.strip_h3)
        except dns.MalformedDNS:
            return None
    query.down += len(data)
    return query.data[:2] + data[2:]


def _host(name: str) -> str:
    """The host whose service a name asks for: without `_8443._https` before it (RFC 9460 section 2.3)."""
    while name.startswith("_"):
        name = name.partition(".")[2]
    return name


@lru_cache(_REMEMBERED)
def _text(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def server_of(config: SidecarConfig, destination: Sockaddr) -> Sockaddr:
    """Whom to ask: the policy's resolver, else the one that the application chose."""
    server = config.capture.dns.server
    if server is None:
        return destination
    return (server, 53, 0, 0) if ":" in server else (server, 53)


def close(context: EdgeContext, query: DNSQuery, error: FlowError | None = None) -> None:
    """Write the query's one record. Intercept means for DNS: forwarded."""
    verdict = query.verdict
    # By position, because it is done for each query, and matching as many keywords costs more than all the rest of it.
    context.record(
        FlowRecord(
            query.time,
            query.id,
            Client(query.uid, None, query.client[0]),
            Protocol.DNS,
            None if query.question is None else query.question.name,
            None,  # SNI
            query.destination[0],
            query.destination[1],
            None,  # ALPN
            Decision.DENY if verdict.decision is Decision.DENY else Decision.PASSTHROUGH,
            verdict.reason,
            verdict.rule,
            None,  # TLS
            query.up,
            query.down,
            int((context.now() - query.started) * 1e6) / 1000,
            error,
        )
    )
