"""The capture config as a ruleset: which packets of the pod go to the sidecar, and what happens when it is gone.

The way of a packet (docs/capture.md tells it at length):

    output: marked? → loopback → SYN or DNS query: decide → decided before (connection mark): as decided → decide
    decide: exempt (the proxy, what the policy excludes) | refuse | capture
    capture: Open: only while the proxy's heart beats; Closed with startup Open: once it has beaten; sets the connection
        mark and, for TPROXY, the packet mark
    policy route: packet mark → loopback → prerouting: tproxy to the listener; nobody listens: `unanswered`

The connection mark has two bits: `captured` and `exempt`; neither: not decided, or gone direct for want of a proxy.
The packet mark uses the same bits: `captured` asks for the policy route, the other one tells the copy that `dup` makes.
"""

from collections.abc import Iterator

from weir_sidecar.contract.config import OtherUDP, QuicMode, SidecarConfig
from weir_sidecar.netfilter.features import Features
from weir_sidecar.netfilter.literals import cidr_sets, id_set, interface, port_set
from weir_sidecar.netfilter.marks import Marks
from weir_sidecar.netfilter.objects import Chain, ChainType, DynamicSet, Family, Hook, Point, Rule, Table
from weir_sidecar.netfilter.plan import Plan
from weir_sidecar.wire.syn import ADMITTED_HOPS, HELD_PROTOCOL

MANGLE = -150
NAT = -100
FILTER = 0

IS_SYN = "tcp flags & (syn | ack) == syn"
NOT_SYN = "tcp flags & (syn | ack) != syn"
NO_PROXY = "meta nfproto != @alive"
NO_PROXY_YET = "meta nfproto != @started"
ALL_PORTS = "1-65535"


def build(config: SidecarConfig, features: Features) -> tuple[Table, ...]:
    """The tables for a config. Raises `RulesetError` for values that no rule can say."""
    plan = Plan(config, features, Marks.of(config.marks))
    chains = [_output(plan), _loopback(plan), _decide(plan), _exempt(plan), _capture(plan)]
    if plan.open:
        chains.append(_unproxied(plan))
    if not (plan.open and plan.tproxy):
        chains.append(_refuse(plan))
    chains += _tproxy_chains(plan) if plan.tproxy else _redirect_chains(plan)
    if plan.tproxy or not plan.open:
        chains.append(_guard(plan))
    if not plan.open:
        chains.append(_forward(plan))
    return Table(Family.INET, tuple(chains), _sets(plan)), *_resend(plan)


def _held(plan: Plan) -> tuple[str, ...]:
    """The beginnings of matches for SYNs by their hop limit, one a family: what the sidecar holds, and lets go on."""
    if not (plan.tproxy and plan.config.capture.connect_first):
        return ()
    # A SYN behind IPv6 extension headers is not held: the sidecar would not recognise it.
    return (f"{IS_SYN} ip ttl", f"ip6 nexthdr tcp {IS_SYN} ip6 hoplimit")


def _sets(plan: Plan) -> tuple[DynamicSet, ...]:
    if plan.waits:
        return (DynamicSet("started", "nf_proto", 2),)
    return (_alive(plan),) if plan.open else ()


def _alive(plan: Plan) -> DynamicSet:
    # Presumed alive when loaded, so that loading a changed policy opens no gap. Where nobody listens the first packet
    # finds out and loses nothing, thanks to dup; where that would cost something, a heartbeat has to come first.
    families = ("ipv4", "ipv6") if plan.tproxy and plan.features.dup else ()
    timeout = max(1, round(plan.config.heartbeat.timeout * 1000))
    return DynamicSet("alive", "nf_proto", 1024, timeout, families)


def _output(plan: Plan) -> Chain:
    marks = plan.marks
    rules = []
    if plan.tproxy:
        rules.append(Rule(f"meta mark & {marks.mask:#010x} != 0x0 jump marked", "our mark bits, set by others"))
    rules += [
        Rule('oif "lo" goto loopback', "what goes to this pod itself stays here"),
        *(Rule(f"{plan.proxy} {syn} == {ADMITTED_HOPS} goto admitted", "a held SYN, admitted") for syn in _held(plan)),
        Rule(f"{IS_SYN} goto decide", "a SYN that is sent again is decided again"),
    ]
    if plan.config.capture.dns.capture:
        rules.append(Rule("ct direction original udp dport 53 goto decide", "each query is decided for itself"))
    # A TCP connection begins with a SYN. A UDP port may have changed hands, with the connection still known.
    rules += [
        Rule(f"meta l4proto udp {plan.proxy} goto exempt", "the proxy's own, whoever had the port before"),
        Rule(f"{marks.among('ct', marks.captured)} goto captured", "decided before"),
        Rule(f"meta l4proto udp {marks.among('ct', marks.second)} goto decide", "still exempt?"),
    ]
    if plan.open:
        rules.append(Rule("ct state established accept", "decided before, or older than these rules"))
    else:
        rules += [
            Rule(f"{marks.among('ct', marks.second)} accept", "decided before"),
            Rule("ct direction reply accept", "answers to who called in"),
        ]
    rules.append(Rule("goto decide"))
    # Only TPROXY changes packet marks; a chain of type route has the packet routed again.
    kind = ChainType.ROUTE if plan.tproxy else ChainType.FILTER
    return Chain("output", tuple(rules), Hook(kind, Point.OUTPUT, MANGLE))


def _loopback(plan: Plan) -> Chain:
    rules = []
    beat = f"{plan.proxy} udp dport {plan.config.ports.heartbeat}"
    if plan.open:
        rules.append(
            Rule(f"{beat} update @alive {{ meta nfproto }} accept", "the proxy's heartbeat, and nobody else's")
        )
    if plan.waits:
        # A family that loopback does not speak has no heartbeat, and must not stay open for it.
        started = "add @started { ipv4 } add @started { ipv6 } accept"
        rules.append(Rule(f"{beat} {started}", "the proxy serves: from now on it is it or nothing"))
    if plan.tproxy:
        rules.append(
            Rule(
                f"ct state new {plan.proxy} fib saddr type != local {plan.marks.put('ct', plan.marks.captured)}",
                "the proxy answers a client whose connection the kernel forgot (UDP, 30 s): still captured",
            ),
        )
    if plan.handed_over:
        rules.append(
            Rule(f"{plan.proxy} udp dport {plan.config.ports.admin} drop", "who asks so finds that rules are here")
        )
    rules.append(Rule("accept"))
    return Chain("loopback", tuple(rules))


def _decide(plan: Plan) -> Chain:
    capture = plan.config.capture
    rules = [
        Rule(f"{plan.proxy} goto exempt", "the proxy's own"),
        Rule("fib daddr type { local, broadcast, multicast } goto exempt", "not for a proxy"),
        *_excluded(plan),
        *_other_protocols(plan),
        # An original destination has no scope, so no proxy could connect to it.
        Rule(f"ip6 daddr fe80::/10 goto {'exempt' if plan.open else 'refuse'}", "link-local: means an interface"),
    ]
    if capture.exclude.ports:
        rules.append(Rule(f"th dport {port_set(capture.exclude.ports)} goto exempt", "excluded ports"))
    dns = "capture" if capture.dns.capture else "exempt"
    rules.append(Rule(f"th dport 53 goto {dns}", "DNS"))
    ports = port_set(capture.ports) if capture.ports else None
    if ports is None:
        rules.append(Rule("goto exempt", "no other port is captured"))
    else:
        if ports != f"{{ {ALL_PORTS} }}":
            rules.append(Rule(f"th dport != {ports} goto exempt", "ports that are not captured"))
        rules += [*_udp(plan), Rule("goto capture")]
    return Chain("decide", tuple(rules))


def _excluded(plan: Plan) -> list[Rule]:
    exclude = plan.config.capture.exclude
    rules = [Rule(f"oifname {interface(name)} goto exempt", "excluded interface") for name in exclude.interfaces]
    rules += [Rule(f"{match} goto exempt", "excluded addresses") for match in cidr_sets(exclude.cidrs)]
    if exclude.uids:
        rules.append(Rule(f"meta skuid {id_set(exclude.uids)} goto exempt", "excluded users"))
    if exclude.gids:
        rules.append(Rule(f"meta skgid {id_set(exclude.gids)} goto exempt", "excluded groups"))
    return rules


def _other_protocols(plan: Plan) -> list[Rule]:
    if plan.config.capture.other_protocols:
        return [Rule("meta l4proto != { tcp, udp } accept", "no proxy for these")]
    return [
        Rule(
            "meta l4proto != { tcp, udp, icmp, icmpv6 } reject with icmpx type admin-prohibited",
            "nobody could see these",
        ),
        Rule("meta l4proto { icmp, icmpv6 } accept", "errors, echo, neighbour discovery"),
    ]


def _udp(plan: Plan) -> list[Rule]:
    """UDP that is not DNS. A verdict of capture needs no rule: it is what the chain ends with."""
    other = _other_udp(plan)
    quic = other if plan.config.capture.quic is QuicMode.ALLOW else "capture" if plan.tproxy else "refuse"
    rules = []
    if quic != other:
        rules.append(Rule(f"udp dport 443 goto {quic}", "QUIC"))
    if other != "capture":
        rules.append(Rule(f"meta l4proto udp goto {other}", "other UDP"))
    return rules


def _other_udp(plan: Plan) -> str:
    match plan.config.capture.other_udp:
        case OtherUDP.IGNORE:
            return "exempt"
        case OtherUDP.DENY:
            return "capture" if plan.tproxy else "refuse"
        case OtherUDP.ALLOW if plan.tproxy:
            return "capture"
        case OtherUDP.ALLOW:
            # NAT tells a UDP listener no original destination, so there is no relay; Closed lets nothing by unseen.
            return "exempt" if plan.open else "refuse"


def _exempt(plan: Plan) -> Chain:
    return Chain("exempt", (Rule(plan.marks.put("ct", plan.marks.second)), Rule("accept")))


def _refuse(plan: Plan) -> Chain:
    rules = [Rule(f"{NO_PROXY} goto unproxied")] if plan.open else _before_start(plan)
    rules += [
        Rule("meta l4proto tcp reject with tcp reset"),
        Rule("reject with icmpx type port-unreachable"),
    ]
    return Chain("refuse", tuple(rules))


def _capture(plan: Plan) -> Chain:
    if plan.open:
        rules = [
            Rule(f"{NOT_SYN} accept", "it began before capture did"),
            Rule(f"{NO_PROXY} goto unproxied", "no heartbeat: direct"),
        ]
    else:
        rules = [
            *_before_start(plan),
            Rule(f"{NOT_SYN} reject with tcp reset", "it began before capture did, and nobody saw it"),
        ]
    rules += [Rule(plan.marks.put("ct", plan.marks.captured)), Rule("goto captured")]
    return Chain("capture", tuple(rules))


def _before_start(plan: Plan) -> list[Rule]:
    return (
        [Rule(f"{NO_PROXY_YET} goto exempt", "before the proxy is ready for the first time: direct")]
        if plan.waits
        else []
    )


def _unproxied(plan: Plan) -> Chain:
    return Chain("unproxied", (Rule(plan.marks.put("ct", 0)), Rule("accept")))


def _tproxy_chains(plan: Plan) -> list[Chain]:
    marks, ports = plan.marks, plan.config.ports
    captured = Chain("captured", (Rule(marks.put("meta", marks.captured), "asks for the policy route"), Rule("accept")))
    prerouting = Chain(
        "prerouting",
        (Rule(f'iif "lo" {marks.among("meta", marks.captured)} goto intercept'),),
        Hook(ChainType.FILTER, Point.PREROUTING, MANGLE),
    )
    # The packet has its route; without the mark no reply can inherit it (fwmark_reflect, tcp_fwmark_accept).
    unmark = marks.put("meta", 0)
    intercept = Chain(
        "intercept",
        (
            *_holding(plan),
            Rule(f"meta l4proto tcp tproxy to :{ports.tcp} {unmark} accept", "established sockets first"),
            Rule(f"meta l4proto udp tproxy to :{ports.udp} {unmark} accept"),
            Rule("meta l4proto { icmp, icmpv6 } accept", "errors about a captured flow are for the proxy's socket"),
            Rule("meta l4proto { tcp, udp } goto unanswered"),
            Rule("drop"),
        ),
    )
    admitted = Chain("admitted", (Rule(marks.put("ct", marks.captured)), Rule("goto captured")))
    held = [admitted] if _held(plan) else []
    kept = [_before_nat(plan)] if plan.config.capture.before_nat else []
    return [_marked(plan), captured, *held, *kept, prerouting, intercept, _unanswered(plan)]


def _holding(plan: Plan) -> Iterator[Rule]:
    """While somebody listens, SYNs go to the sidecar's raw socket and not to TCP. The mark tells it that they are ours."""
    for syn, family, protocol in zip(_held(plan), ("ip", "ip6"), ("ip protocol", "ip6 nexthdr"), strict=False):
        held = f"tproxy {family} to :{plan.config.ports.tcp} {protocol} set {HELD_PROTOCOL} accept"
        yield Rule(f"{syn} != {ADMITTED_HOPS} {held}", "held until the upstream answers")


def _before_nat(plan: Plan) -> Chain:
    # A connection is translated once. One that was translated to what it already had passes all later chains.
    captured = plan.marks.among("meta", plan.marks.captured)
    return Chain(
        "before_nat",
        (
            Rule(f"{captured} meta nfproto ipv4 dnat ip to ip daddr", "no other NAT rule turns it elsewhere"),
            Rule(f"{captured} meta nfproto ipv6 dnat ip6 to ip6 daddr"),
        ),
        Hook(ChainType.NAT, Point.OUTPUT, NAT - 1),
    )


def _marked(plan: Plan) -> Chain:
    marks = plan.marks
    rules = []
    if plan.features.dup:
        # Only dup makes TCP and UDP that conntrack does not track: an application's mark exempts nothing.
        copy = f"{marks.among('meta', marks.second)} ct state untracked"
        if plan.open:
            rules.append(
                Rule(f"{copy} meta l4proto {{ tcp, udp }} {marks.put('meta', 0)} accept", "a packet sent again: direct")
            )
        else:
            rules.append(
                Rule(
                    f"{copy} meta l4proto udp reject with icmpx type port-unreachable",
                    "a packet sent again, to be refused here: from prerouting no ICMP error can be sent",
                ),
            )
    rules += [
        # It took our policy route from the start, so even its source may be an address that is not the pod's.
        Rule(f"{marks.among('meta', marks.captured)} drop", "asked for the policy route itself"),
        Rule(marks.put("meta", 0), "means nothing from others"),
    ]
    return Chain("marked", tuple(rules))


def _unanswered(plan: Plan) -> Chain:
    """A captured packet that no socket wants: the proxy is gone."""
    marks = plan.marks
    reset = f"{marks.put('meta', 0)} reject with tcp reset"
    again = Rule(f"{marks.put('meta', marks.second)} accept", "sent again by a later chain")
    last = again if plan.features.dup else Rule("drop", "the client sends it again")
    if plan.open:
        rules = [
            Rule(f"{NOT_SYN} {reset}", "its flow died with the proxy"),
            Rule("delete @alive { meta nfproto }", "the switch opens"),
            Rule(marks.put("ct", 0)),
            last,
        ]
    else:
        rules = [Rule(f"meta l4proto tcp {reset}"), last]
    return Chain("unanswered", tuple(rules))


def _resend(plan: Plan) -> list[Table]:
    """`dup` exists in tables of one family only."""
    if not plan.tproxy or not plan.features.dup:
        return []
    match = f'iif "lo" {plan.marks.among("meta", plan.marks.second)}'
    hook = Hook(ChainType.FILTER, Point.PREROUTING, MANGLE + 1)
    families = [Family.IP, Family.IP6] if plan.features.ipv6 else [Family.IP]
    return [
        Table(family, (Chain("resend", (Rule(f"{match} dup to {family} daddr drop"),), hook),)) for family in families
    ]


def _redirect_chains(plan: Plan) -> list[Chain]:
    ports = plan.config.ports
    captured = plan.marks.among("ct", plan.marks.captured)
    chains = [
        Chain("captured", (Rule("accept", "to the chain translate"),)),
        Chain(
            "translate",
            (
                Rule(f"{captured} meta l4proto tcp redirect to :{ports.tcp}"),
                Rule(f"{captured} meta l4proto udp redirect to :{ports.udp}"),
            ),
            Hook(ChainType.NAT, Point.OUTPUT, NAT),
        ),
    ]
    if plan.open:
        rules = (
            Rule(f"{captured} ct state new meta l4proto {{ tcp, udp }} jump arrived"),
            Rule("accept"),
        )
        arrived = (
            Rule("socket transparent { 0, 1 } accept", "somebody listens"),
            Rule("delete @alive { meta nfproto }", "the switch opens; this one is refused"),
        )
        chains += [Chain("input", rules, Hook(ChainType.FILTER, Point.INPUT, FILTER)), Chain("arrived", arrived)]
    return chains


def _guard(plan: Plan) -> Chain:
    """What is captured never leaves, also where policy routes or address translation are missing.

    A socket that is bound to an interface takes no route by another, and anybody may bind one (SO_BINDTODEVICE in
    socket(7)): that would be a way round.
    """
    marks = plan.marks
    if plan.tproxy:
        rule = f'oif != "lo" {marks.among("meta", marks.captured)} drop'
    else:
        rule = f'oif != "lo" {marks.among("ct", marks.captured)} ct direction original drop'
    rules = [Rule(rule)]
    if plan.tproxy and plan.handed_over:
        spoofed = f'oif != "lo" {plan.proxy} fib saddr type != local drop'
        rules += [
            Rule(spoofed, "sockets that were handed over answer clients in this pod, from any address"),
            Rule(f'oif != "lo" {plan.proxy} meta l4proto != {{ tcp, udp }} drop', "and send ICMP to them alone"),
        ]
    return Chain("guard", tuple(rules), Hook(ChainType.FILTER, Point.POSTROUTING, MANGLE))


def _forward(plan: Plan) -> Chain:
    """Closed: what a pod forwards (for a namespace nested in it) did not come from the proxy."""
    names = plan.config.capture.exclude.interfaces
    rules = [Rule(f"oifname {interface(name)} accept", "excluded interface") for name in names]
    rules += [Rule("ct direction reply accept"), Rule("drop")]
    return Chain("forward", tuple(rules), Hook(ChainType.FILTER, Point.FORWARD, FILTER))
