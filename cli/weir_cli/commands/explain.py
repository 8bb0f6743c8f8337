"""`weir explain`: what would happen to a flow, or a request in it, and which rule says so. Sends nothing, changes nothing.

Asks policy files, or with --pod the policies of a cluster and what is known of the pod's workload.
"""

import argparse
import os
import re
import sys
import time
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from weir_cli import policy_files
from weir_cli.cluster import kubectl
from weir_cli.cluster.captured import Bearing, CapturedPod, captured_pod
from weir_cli.cluster.kubectl import KubectlError
from weir_cli.text import printable
from weir_operator import grammar
from weir_operator.cluster.policies import Policies
from weir_sidecar.contract.config import (
    CaptureMode,
    FailureMode,
    OtherUDP,
    PortRange,
    QuicMode,
    SidecarConfig,
    VerifyAddress,
)
from weir_sidecar.contract.flow import Decision, Protocol, Reason
from weir_sidecar.contract.request import RequestDecision
from weir_sidecar.core.http_policy import RequestFacts, RequestPolicy, RequestVerdict
from weir_sidecar.core.policy import Policy
from weir_sidecar.core.trust_cache import Bypass, InterceptNow, TrustCache
from weir_sidecar.core.trust_dump import TrustDumpError
from weir_sidecar.core.verdict import FlowFacts, Verdict
from weir_sidecar.edge.dns_query import DOH_CANARY

ANY_ADDRESS = "192.0.2.1"
"""Stands for "some address" where none is given: it is nobody's (RFC 5737), so rules about networks hardly match it."""

NOT_CAPTURED = "not_captured"
"""What no record says, because such a flow has none: the kernel never brings it to the sidecar."""

_WHY = {
    Reason.RULE: "it is the first rule that matches this flow",
    Reason.DEFAULT: "no rule matches this flow, so defaultAction decides",
    Reason.NEVER_INTERCEPT: "neverIntercept names this host",
    Reason.NOT_TLS_OR_HTTP: "there is neither TLS nor HTTP in this flow to intercept",
    Reason.QUIC_REJECTED: "capture.quic is Reject, so that the client falls back to TCP",
    Reason.OTHER_UDP_DENIED: "capture.otherUDP is Deny",
    Reason.PINNED: "somebody pinned this host or app: weir exceptions",
    Reason.APPROVED: "somebody approved this host or app: weir exceptions",
    Reason.CLIENT_DISTRUSTS_CA: "this client did not trust the CA for this host",
    Reason.APP_DISTRUSTS_CA: "this client did not trust the CA for several hosts, and never did",
    Reason.PROBATION: "a bypass has ended, and one flow tries again whether the client trusts the CA",
    Reason.CLIENT_CERTIFICATE_REQUESTED: "the server asked for the client's own certificate",
    Reason.DOH_CANARY: "capture.dns.blockDoHCanary keeps browsers to the system's resolver",
}

_WHY_REQUEST = "it is the first rule on requests, of those of the flow's rule, that matches"


class Answer(msgspec.Struct, frozen=True):
    """What would be done with a flow, and why. `reason` is a `Reason` or `NOT_CAPTURED`."""

    decision: Decision
    reason: str
    rule: str | None
    why: str
    request: RequestVerdict | None = None
    """What would be done with the request that was asked about, where the flow is read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    source = parser.add_mutually_exclusive_group()
    policy_files.add_argument(source)
    source.add_argument("--pod", metavar="[NS/]NAME", help="a pod of a cluster, instead of policy files")
    kubectl.add_arguments(parser)
    parser.add_argument("--host", type=_host, help="the name in SNI, Host or the DNS query")
    parser.add_argument("--address", type=_address, help="where the flow goes to; default with --host: any")
    parser.add_argument("--port", type=_port, default=443, help="default: 443")
    parser.add_argument("--uid", type=_uid, help="the client's user id")
    parser.add_argument("--ja4", type=_ja4, help="the fingerprint of the client's ClientHello")
    parser.add_argument(
        "--protocol",
        type=Protocol,
        metavar="{tls,http,dns,tcp,udp}",
        help="default: dns for port 53, else tls with --host or for port 443, else http for port 80, else tcp",
    )
    parser.add_argument("--method", help="ask about an HTTP request with this method too (default with --path: GET)")
    parser.add_argument(
        "--path", type=_request_path, metavar="PATH[?QUERY]", help="its path (default with --method: /)"
    )
    parser.add_argument(
        "--header", type=_header, action="append", default=[], metavar="NAME:VALUE", help="one of its header fields"
    )
    parser.add_argument(
        "--state", metavar="DIR", type=Path, help="also ask the trust cache that `weir run` keeps there"
    )
    parser.add_argument("-o", "--output", choices=["json"], help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print decision, rule and reason. Status 1: the cluster cannot be asked; 2: a policy file, or an argument is wrong."""
    if args.address is None and args.host is None:
        print("weir explain: give --host, --address, or both: where does the flow go to?", file=sys.stderr)
        return 2
    facts = FlowFacts(
        protocol=args.protocol or _usual_protocol(args.host, args.port),
        address=args.address or ANY_ADDRESS,
        port=args.port,
        host=args.host,
        uid=args.uid,
        ja4=args.ja4,
    )
    return _run_for_files(args, facts) if args.pod is None else _run_for_pod(args, facts)


def _run_for_files(args: argparse.Namespace, facts: FlowFacts) -> int:
    compiled = policy_files.read_or_report(args.files)
    if compiled is None:
        return 2
    policy_files.report_notices(compiled)
    try:
        learned = None if args.state is None else _learned(args.state)
        answer = explain(compiled.config, facts, learned)
    except (OSError, TrustDumpError) as error:
        print(f"weir: --state {args.state}: {error}", file=sys.stderr)
        return 2
    answer = _with_request(answer, compiled.config, request_facts(args))
    _print(answer, facts, _conditions(answer, facts, compiled.config), args.output)
    return 0


def _run_for_pod(args: argparse.Namespace, facts: FlowFacts) -> int:
    try:
        pod = captured_pod(kubectl.from_arguments(args), args.pod)
    except KubectlError as error:
        print(f"weir explain: {printable(str(error))}", file=sys.stderr)
        return 1
    config = (pod.plan or Policies.unselected()).config
    answer = _with_request(explain_in_pod(pod, config, facts), config, request_facts(args))
    bearing = [] if facts.host is None else pod.about(facts.host)
    maybe = [f"{one.name}: {_app(one)}: {_WHY[one.reason]}" for one in bearing if not _is_of(one, facts)]
    _print(answer, facts, [*_conditions(answer, facts, config), *maybe], args.output)
    return 0


def explain_in_pod(pod: CapturedPod, config: SidecarConfig, facts: FlowFacts) -> Answer:
    """What happens to a flow of a pod whose policies come to `config`."""
    if not pod.facts.captured:
        selected = "a policy selects this pod, but" if pod.plan else "no policy selects this pod, and"
        return Answer(
            Decision.PASSTHROUGH, NOT_CAPTURED, None, f"{selected} it has no sidecar: `weir status` says more"
        )
    answer = explain(config, facts)
    if answer.decision is not Decision.INTERCEPT or facts.protocol is not Protocol.TLS or facts.host is None:
        return answer
    known = next((one for one in pod.about(facts.host) if _is_of(one, facts)), None)
    if known is None:
        return answer
    decision = Decision.INTERCEPT if known.intercept else Decision.PASSTHROUGH
    return Answer(decision, known.reason, answer.rule, f"{_WHY[known.reason]}: TrustException {known.name}")


def _is_of(one: Bearing, facts: FlowFacts) -> bool:
    return one.uid in (None, facts.uid) and one.ja4 in (None, facts.ja4)


def _app(one: Bearing) -> str:
    parts = [f"the user is {one.uid}" if one.uid is not None else "", f"the JA4 is {one.ja4}" if one.ja4 else ""]
    return " and ".join(filter(None, parts))


def _conditions(answer: Answer, facts: FlowFacts, config: SidecarConfig) -> list[str]:
    """What the answer rests on that was not told."""
    if facts.host and answer.decision is not Decision.DENY and config.verify_address is VerifyAddress.DENY:
        return ["DNS gave the pod this address for this name; verifyAddress is Deny"]
    return []


def _print(answer: Answer, facts: FlowFacts, conditions: list[str], output: str | None) -> None:
    if output == "json":
        print(msgspec.json.encode(_as_json(answer, facts)).decode())
        return
    print(f"decision: {answer.decision}")
    print(f"rule:     {answer.rule or 'none'}")
    print(f"reason:   {answer.reason}")
    print(f"why:      {answer.why}")
    for condition in conditions:
        print(f"if:       {condition}")
    if answer.request is not None:
        _print_request(answer.request)


def _print_request(verdict: RequestVerdict) -> None:
    print(f"request:  {verdict.decision}")
    print(f"rule:     {verdict.rule or 'none'}")
    print(f"why:      {_WHY_REQUEST if verdict.rule else 'no rule on requests matches it'}")
    for what in request_effects(verdict):
        print(f"then:     {what}")


def request_effects(verdict: RequestVerdict) -> list[str]:
    """What else happens to a request, in order."""
    effects = [f"it waits {verdict.delay:g} s"] if verdict.delay else []
    if verdict.abort:
        return [*effects, "it is answered by a reset"]
    if verdict.decision is RequestDecision.DENY:
        return [*effects, f"it is answered with status {verdict.status}"]
    for edits, where in ((verdict.request_edits, "of the request"), (verdict.response_edits, "of the answer")):
        if edits is not None:
            put = {name.decode() for name, _ in edits.add}
            effects += [f"{name} {where} is set" for name in sorted(put)]
            effects += [
                f"{name} {where} is removed" for name in sorted(n.decode() for n in edits.remove) if name not in put
            ]
    if verdict.credential is not None:
        effects.append(f"{verdict.credential.header} gets the credential of {verdict.credential.file}")
    return effects


def request_facts(args: argparse.Namespace) -> RequestFacts | None:
    """The request that is asked about; None: the flow alone."""
    if args.method is None and args.path is None and not args.header:
        return None
    path, mark, query = (args.path or "/").partition("?")
    return RequestFacts(
        (args.method or "GET").encode(), args.host, path.encode(), query.encode() if mark else None, tuple(args.header)
    )


def _with_request(answer: Answer, config: SidecarConfig, facts: RequestFacts | None) -> Answer:
    if facts is None or answer.decision is not Decision.INTERCEPT:
        return answer
    return replace(answer, request=RequestPolicy(config).for_rule(answer.rule).decide(facts))


def explain(config: SidecarConfig, facts: FlowFacts, learned: bytes | None = None) -> Answer:
    """What the kernel's rules, then the policy, then a saved trust cache would do with a flow whose name is true."""
    uncaptured = _uncaptured(config, facts)
    if uncaptured is not None:
        return Answer(Decision.PASSTHROUGH, NOT_CAPTURED, None, f"the kernel lets it go direct, unseen: {uncaptured}")
    refused = _refused_before_rules(config, facts)
    if refused is not None:
        return Answer(Decision.DENY, refused, None, _WHY[refused])
    verdict = _after_the_cache(config, facts, Policy(config).decide(facts), learned)
    return Answer(verdict.decision, verdict.reason, verdict.rule, _WHY[verdict.reason])


def _uncaptured(config: SidecarConfig, facts: FlowFacts) -> str | None:
    """Why the kernel does not bring the flow to the sidecar; None: it does. In the order of the kernel's rules."""
    capture, address = config.capture, ip_address(facts.address)
    exclude = capture.exclude
    is_udp, is_dns = facts.protocol is Protocol.UDP, facts.port == 53
    is_quic = is_udp and facts.port == 443 and capture.quic is QuicMode.REJECT
    unrelayed = capture.mode is CaptureMode.REDIRECT and config.failure_mode is FailureMode.OPEN
    causes = (
        (address.is_loopback or address.is_multicast, "it does not leave for one other machine"),
        (facts.uid == config.identity.uid, "its user is the proxy's own"),
        (any(address in ip_network(cidr) for cidr in exclude.cidrs), f"capture.exclude.cidrs has {facts.address}"),
        (
            any(facts.uid in uids for uids in exclude.uids if facts.uid is not None),
            f"capture.exclude.uids has {facts.uid}",
        ),
        (address.version == 6 and address.is_link_local and config.failure_mode is FailureMode.OPEN, "link-local IPv6"),
        (_in_ranges(facts.port, exclude.ports), f"capture.exclude.ports has {facts.port}"),
        (is_dns and not capture.dns.capture, "capture.dns.capture is false"),
        (not is_dns and not _in_ranges(facts.port, capture.ports), f"capture.ports does not have {facts.port}"),
        (is_udp and not is_quic and capture.other_udp is OtherUDP.IGNORE, "capture.otherUDP is Ignore"),
        (
            is_udp and not is_quic and capture.other_udp is OtherUDP.ALLOW and unrelayed,
            "mode Redirect has no UDP relay",
        ),
    )
    return next((why for holds, why in causes if holds), None)


def _refused_before_rules(config: SidecarConfig, facts: FlowFacts) -> Reason | None:
    """Why a flow is refused whatever the rules say."""
    capture = config.capture
    if facts.protocol is Protocol.UDP and facts.port == 443 and capture.quic is QuicMode.REJECT:
        return Reason.QUIC_REJECTED
    if facts.protocol is Protocol.UDP and capture.other_udp is OtherUDP.DENY:
        return Reason.OTHER_UDP_DENIED
    if facts.protocol is Protocol.DNS and facts.host == DOH_CANARY and capture.dns.block_doh_canary:
        return Reason.DOH_CANARY
    return None


def _after_the_cache(config: SidecarConfig, facts: FlowFacts, verdict: Verdict, learned: bytes | None) -> Verdict:
    """The verdict once a trust cache (its saved state) was asked, which only an interception of TLS does."""
    asked = verdict.decision is Decision.INTERCEPT and facts.protocol is Protocol.TLS
    if learned is None or facts.host is None or not asked:
        return verdict
    cache = TrustCache.load(learned, config.trust.fail_open)
    match cache.admit(facts.host, facts.uid, facts.ja4, time.time()):
        case Bypass(reason=reason):
            return Verdict(Decision.PASSTHROUGH, reason, verdict.rule)
        case InterceptNow(reason=Reason() as reason):
            return Verdict(Decision.INTERCEPT, reason, verdict.rule)
    return verdict


def _in_ranges(port: int, ranges: tuple[PortRange, ...]) -> bool:
    return any(port in ports for ports in ranges)


def _usual_protocol(host: str | None, port: int) -> Protocol:
    if port == 53:
        return Protocol.DNS
    if host is not None or port == 443:
        return Protocol.TLS
    return Protocol.HTTP if port == 80 else Protocol.TCP


def _learned(state: Path) -> bytes | None:
    """The saved trust cache; None: nothing was saved yet. Raises OSError when `state` is no directory to read."""
    directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    os.close(directory)
    file = state / "sidecar" / "trust.json"
    return file.read_bytes() if file.exists() else None


def _as_json(answer: Answer, facts: FlowFacts) -> dict[str, Any]:
    request = answer.request
    told: dict[str, Any] = {}
    if request is not None:
        effects = request_effects(request)
        told = {"request": {"decision": request.decision, "rule": request.rule, "effects": effects}}
    return told | {
        "decision": answer.decision,
        "reason": answer.reason,
        "rule": answer.rule,
        "host": facts.host,
        "address": facts.address,
        "port": facts.port,
        "uid": facts.uid,
        "ja4": facts.ja4,
        "protocol": facts.protocol,
    }


def _host(text: str) -> str:
    host = text.lower().removesuffix(".")
    if not re.fullmatch(r"[a-z0-9_.:-]{1,253}", host, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"found {text!r}; allowed: a host name in its ASCII form, such as api.example.com"
        )
    return host


def _request_path(text: str) -> str:
    if not text.startswith(("/", "*")) or not text.isascii():
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a path as it is sent, such as /v1/items?page=2")
    return text


def _header(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: NAME:VALUE")
    try:
        return grammar.header_name(name).encode(), value.strip().encode()
    except grammar.UnreadableError as error:
        raise argparse.ArgumentTypeError(f"found {name!r}; allowed: {error}") from error


def _address(text: str) -> str:
    try:
        return grammar.address(text)
    except grammar.UnreadableError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: {error}") from error


def _ja4(text: str) -> str:
    try:
        return grammar.ja4(text)
    except grammar.UnreadableError as error:
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: {error}") from error


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a port from 1 to 65535")
    return int(text)


def _uid(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= grammar.MAX_ID):
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a number from 0 to {grammar.MAX_ID}")
    return int(text)
