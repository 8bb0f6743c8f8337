"""Policy files: what is accepted, and what is said about the rest, with its place."""

import contextlib
import itertools

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from weir_operator.load import load
from weir_operator.models import InterceptionPolicy, Match, TrustPolicy
from weir_operator.nodes import MAX_BYTES, MAX_DEPTH
from weir_operator.problems import PolicyError
from weir_sidecar.contract.config import Action, FailureMode, IDRange, PortRange

HEAD = "apiVersion: weir.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: p}}\n"


def wrong(text, file="p.yaml"):
    """The lines about a bad file."""
    with pytest.raises(PolicyError) as caught:
        load(text.encode() if isinstance(text, str) else text, file)
    return str(caught.value).splitlines()


def policy(spec, kind="InterceptionPolicy"):
    """A document whose spec is this flow-style YAML, on line 4."""
    return HEAD.format(kind=kind) + f"spec: {spec}\n"


def only_problem(spec, kind="InterceptionPolicy"):
    (line,) = wrong(policy(spec, kind))
    return line


def test_a_full_policy_is_read():
    text = policy(
        "{podSelector: {matchLabels: {a: b}}, failureMode: Closed, priority: 5, rules: [{name: r, action: Deny, match: "
        '{hosts: ["*.Example.COM."], cidrs: [10.1.2.3, "2001:DB8::/32"], ports: [443, "80-90"], protocols: [tls],'
        ' apps: [{uids: [0, "5-6"]}]}}], capture: {ports: [1], otherUDP: Deny, dns: {stripECH: false}}}'
    )
    (one,) = load(text.encode(), "p.yaml")
    assert isinstance(one.document, InterceptionPolicy)
    spec = one.document.spec
    assert spec.failure_mode is FailureMode.CLOSED
    assert spec.capture.dns is not None
    assert spec.capture.dns.strip_ech is False
    assert spec.rules[0].action is Action.DENY
    match = spec.rules[0].match
    assert match.hosts == ("*.example.com",)
    assert match.cidrs == ("10.1.2.3/32", "2001:db8::/32")
    assert match.ports == (PortRange(443, 443), PortRange(80, 90))
    assert match.apps is not None
    assert match.apps[0].uids == (IDRange(0, 0), IDRange(5, 6))


def test_several_documents_and_empty_ones():
    text = (
        policy("{}") + "---\n---\n" + policy("{failOpen: {ttl: 1h30m, maxTTL: 86400}}", "ClusterTrustPolicy") + "---\n"
    )
    first, second = load(text.encode(), "p.yaml")
    assert isinstance(first.document, InterceptionPolicy)
    assert isinstance(second.document, TrustPolicy)
    assert second.document.spec.fail_open.ttl == 5400
    assert second.document.spec.fail_open.max_ttl == 86400


def test_what_an_api_server_adds_is_read_over():
    text = HEAD.format(kind="InterceptionPolicy").replace(
        "name: p", "name: p, creationTimestamp: null, resourceVersion: '1', generation: 2, managedFields: [{a: 1}]"
    )
    assert load(f"{text}spec: {{}}\nstatus: {{conditions: []}}\n".encode(), "p.yaml")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            "{failureMode: open}",
            "p.yaml:4:21: spec.failureMode: found 'open'; did you mean Open?; allowed: Open, Closed",
        ),
        ("{failureMode: 1}", "p.yaml:4:21: spec.failureMode: found the number 1; allowed: Open, Closed"),
        ("{rules: {}}", "p.yaml:4:15: spec.rules: found an object; allowed: a list"),
        (
            "{capture: []}",
            "p.yaml:4:17: spec.capture: found a list; allowed: an object with mode, ports, exclude, dns,",
        ),
        ("{capture: }", "p.yaml:4:17: spec.capture: found nothing; allowed: an object with"),
        ("{rules: [{action: Deny, match: {hosts: }}]}", "spec.rules[0].match.hosts: found nothing; allowed: a list"),
        ("{rules: [{action: Deny, match: {hosts: []}}]}", "found an empty list; allowed: at least one entry, or leave"),
        ("{rules: [{name: a}]}", "p.yaml:4:16: spec.rules[0].action: missing; it is required"),
        ("{priority: -1}", "spec.priority: found the number -1; allowed: a whole number from 0 to 10000"),
        ("{priority: true}", "spec.priority: found the boolean true; allowed: a whole number from 0 to 10000"),
        ("{capture: {dns: {cache: yes}}}", "spec.capture.dns.cache: found 'yes'; allowed: true or false"),
        (
            "{defaultActon: Deny}",
            "p.yaml:4:8: spec.defaultActon: unknown field; did you mean defaultAction?; allowed: ",
        ),
        ("{capture: {otherUdp: Deny}}", "spec.capture.otherUdp: unknown field; did you mean otherUDP?"),
        ("{zzz: 1}", "spec.zzz: unknown field; allowed: podSelector"),
        ("{podSelector: x}", "spec.podSelector: found 'x'; allowed: an object"),
    ],
)
def test_what_is_said_names_place_field_found_and_allowed(spec, says):
    assert says in only_problem(spec)


@pytest.mark.parametrize(
    "port", ["0", "65536", "-1", "1.5", "true", '"9-3"', "010", "0x50", "22:22", '""', '"80-"', "1_0", "[]", "80 90"]
)
def test_bad_ports(port):
    line = only_problem(f"{{capture: {{ports: [{port}]}}}}")
    assert line.startswith("p.yaml:4:26: spec.capture.ports[0]: found ")
    assert line.endswith('allowed: a port from 1 to 65535, or a range such as "8000-8100"')


@pytest.mark.parametrize(
    "word",
    [
        "no",
        "on",
        "Yes",
        "y",
        "N",
        "010",
        "0o17",
        "1.5",
        "12",
        "22:22",
        "2001-01-01",
        "1e3",
        "true",
        "=",
        "1_000",
        ".5",
        ".inf",
    ],
)
def test_what_yaml_may_read_as_something_else_needs_quotes(word):
    line = only_problem(f"{{rules: [{{action: Deny, name: {word}}}]}}")
    assert f"spec.rules[0].name: found {word}, which YAML may read as " in line
    assert line.endswith(f'write it in quotes: "{word}"')


def test_quotes_help():
    (one,) = load(policy('{rules: [{action: Deny, match: {hosts: ["no", "12", "1e3"]}}]}').encode(), "p.yaml")
    assert isinstance(one.document, InterceptionPolicy)
    assert one.document.spec.rules[0].match == Match(hosts=("no", "12", "1e3"))


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("https://example.com", "no scheme, path or port"),
        ("example.com:443", "a port belongs in ports"),
        ("192.0.2.1", "an address belongs in cidrs"),
        ("2001:db8::1", "an address belongs in cidrs"),
        ("*example.com", "for all names below it"),
        ("a.*.example.com", "for all names below it"),
        ("*.*", "for all names below it"),
        ("", "a host name"),
        ("a..b", "a host name"),
        (".", "a host name"),
        ("-a.example", "a host name"),
        ("bücher.example", "in its ASCII form"),
        ("a b", "a host name"),
        ("x" * 64, "a host name"),
    ],
)
def test_bad_hosts(host, hint):
    line = only_problem(f'{{rules: [{{action: Deny, match: {{hosts: ["{host}"]}}}}]}}')
    assert "spec.rules[0].match.hosts[0]: found " in line
    assert hint in line


@pytest.mark.parametrize("duration", ["0", "-5", "1d", "1h 3m", "h", "0s", '""', "true", "100000h", "1e3", "1:30"])
def test_bad_durations(duration):
    assert "spec.failOpen.ttl: found " in only_problem(f"{{failOpen: {{ttl: {duration}}}}}", "TrustPolicy")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), ('"60"s', None)],
)
def test_durations(text, seconds):
    if seconds is None:
        assert wrong(policy(f"{{failOpen: {{ttl: {text}}}}}", "TrustPolicy"))
        return
    (one,) = load(policy(f"{{failOpen: {{ttl: {text}}}}}", "TrustPolicy").encode(), "p.yaml")
    assert isinstance(one.document, TrustPolicy)
    assert one.document.spec.fail_open.ttl == seconds


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("{capture: {exclude: {cidrs: [10.1.2.3/8]}}}", 'which is "10.0.0.0/8"'),
        ("{capture: {exclude: {cidrs: [example.com]}}}", "an address or network"),
        ("{capture: {exclude: {interfaces: ['a\"b']}}}", "an interface name"),
        ("{capture: {exclude: {uids: [4294967295]}}}", "a number from 0 to 4294967294"),
        ("{capture: {dns: {server: dns.example}}}", "an address such as"),
        ("{capture: {dns: {server: fe80::1%eth0}}}", "an address such as"),
        ("{rules: [{action: Deny, match: {apps: [{ja4: [t13]}]}}]}", "a JA4 fingerprint"),
        ("{rules: [{action: Deny, match: {apps: [{uids: []}]}}]}", "found an empty list"),
        ('{rules: [{action: Deny, name: "a b"}]}', "at most 63 letters"),
        ("{trustPolicyRef: {name: UPPER}}", "lower-case letters"),
    ],
)
def test_other_grammars(spec, hint):
    assert hint in only_problem(spec)


def test_all_problems_of_a_file_are_told_at_once_in_its_order():
    text = policy("{failureMode: x, priority: x, rules: [{action: x}]}") + "---\n" + policy("{x: 1}") + "---\na: [\n"
    lines = wrong(text)
    assert [line.split(": ")[0] for line in lines] == [
        "p.yaml:4:21",
        "p.yaml:4:34",
        "p.yaml:4:54",
        "p.yaml:9:8",
        "p.yaml:12:1",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "p.yaml: found no document"),
        ("# nothing\n", "p.yaml: found no document"),
        ("- a\n", "p.yaml:1:1: found no object; allowed: an object with apiVersion, kind, metadata and spec"),
        ("kind: InterceptionPolicy\n", "p.yaml:1:1: apiVersion: missing; allowed: weir.dev/v1alpha1"),
        (
            "apiVersion: v1\nkind: InterceptionPolicy\n",
            "p.yaml:1:13: apiVersion: found 'v1'; allowed: weir.dev/v1alpha1",
        ),
        (
            "apiVersion: weir.dev/v1alpha1\nkind: Pod\n",
            "p.yaml:2:7: kind: found 'Pod'; allowed: InterceptionPolicy, Cluster",
        ),
        ("a: 1\nb: 2\na: 3\n", "p.yaml:3:1: found the key 'a' twice in one object, first on line 1"),
        ("a: [b\n", "p.yaml:2:1: not YAML: "),
        ("a: b: c\n", "p.yaml:1:5: not YAML: "),
        ("a: [*.example.com]\n", 'p.yaml:1:6: a value that begins with * needs quotes: "*.example.com"'),
        ("a:\n- *\n", 'a value that begins with * needs quotes: "*"'),
        ("a: *b\n", "p.yaml:1:4: found the alias *b, and no finished value before it is named &b"),
        ("a: &b [*b]\n", "p.yaml:1:8: found the alias *b, and no finished value"),
        ("a: !!python/object:os.system x\n", "p.yaml:1:4: found the tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("a: !x 1\n", "p.yaml:1:4: found the tag '!x'; YAML tags are not allowed"),
        ("{[a]: 1}\n", "p.yaml:1:2: found a list or an object as a key"),
        ("a: \x07\n", "p.yaml:1:4: found the character U+0007, which YAML does not allow"),
        (b"a: b\nc: d\xff\n", "p.yaml:2:5: found byte 0xff, which is not UTF-8"),
        ("a: " + "[" * (MAX_DEPTH + 9) + "\n", f"nested more than {MAX_DEPTH} levels deep"),
        (b"#" * (MAX_BYTES + 1), "p.yaml: found 1048577 bytes; a policy file has at most 1048576"),
    ],
)
def test_what_is_wrong_with_the_file_as_such(text, says):
    assert says in "\n".join(wrong(text))


def test_not_more_is_told_than_anyone_reads():
    assert len(wrong(policy("{" + ", ".join(f"k{n}: 1" for n in range(1000)) + "}"))) == 100
    assert len(wrong((policy("{x: 1}") + "---\n") * 1000)) == 100
    assert len(wrong("a: 1\n" * 1000)) == 100


def test_a_problem_is_one_line_for_a_terminal():
    assert "spec.a\\n\\x1b[31m: unknown field; allowed: " in only_problem('{"a\\n\\e[31m": 1}')
    assert len(only_problem("{rules: [{action: Deny, name: 1" + "_" * 9999 + "}]}")) < 800


def test_the_parser_in_python_alone_says_the_same(monkeypatch):
    texts = [
        policy("{failureMode: x, a: [*.b]}"),
        "a: \x07\n",
        "a: !x 1\n",
        "a: 1\na: 2\n",
        policy("{rules: [{name: no}]}"),
    ]
    fast = [wrong(text) for text in texts]
    monkeypatch.setattr("weir_operator.nodes._LOADER", yaml.SafeLoader)
    assert [wrong(text) for text in texts] == fast


def test_aliases_are_read_and_bombs_refused():
    text = policy("{rules: [{action: Deny, match: &m {hosts: [a]}}, {action: Deny, match: *m}]}")
    (one,) = load(text.encode(), "p.yaml")
    assert isinstance(one.document, InterceptionPolicy)
    assert one.document.spec.rules[0].match == one.document.spec.rules[1].match

    names = "abcdefghij"
    laughs = "".join(
        f"{here}: &{here} [{', '.join([f'*{before}'] * 9)}]\n" for before, here in itertools.pairwise(names)
    )
    assert "uses of aliases counted in full" in wrong(f"a: &a [x, x]\n{laughs}")[0]
    deep = "".join(f"k{n}: &k{n} [*k{n - 1}]\n" for n in range(1, 200))
    assert "levels deep" in wrong(f"k0: &k0 [x]\n{deep}")[0]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(max_size=9)
WORDS = st.sampled_from(
    [
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "spec",
        "rules",
        "match",
        "hosts",
        "ports",
        "action",
        "http",
        "capture",
        "exclude",
        "cidrs",
        "upstream",
        "roots",
        "file",
        "failOpen",
        "ttl",
        "weir.dev/v1alpha1",
        "InterceptionPolicy",
        "TrustPolicy",
        "Deny",
        "*.example.com",
        "80-90",
        "1h",
    ]
)
TREES = st.recursive(
    SCALARS | WORDS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(WORDS | st.text(max_size=5), below, max_size=5),
    max_leaves=30,
)


def only_declared(data):
    with contextlib.suppress(PolicyError):
        load(data, "p.yaml")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_policy_error(data):
    only_declared(data)


@given(st.text(alphabet="ab:-?[]{}&*!|>'\"%#@`, \n\t0.~<=\x85\ufeff\u2028é", max_size=80))
def test_arbitrary_yaml_raises_only_policy_error(text):
    only_declared(text.encode())


@given(TREES)
def test_arbitrary_trees_raise_only_policy_error(tree):
    only_declared(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@given(st.sampled_from(["InterceptionPolicy", "TrustPolicy"]), TREES)
def test_arbitrary_specs_raise_only_policy_error(kind, spec):
    document = {"apiVersion": "weir.dev/v1alpha1", "kind": kind, "metadata": {"name": "p"}, "spec": spec}
    only_declared(yaml.safe_dump(document).encode("utf-8", "surrogatepass"))
