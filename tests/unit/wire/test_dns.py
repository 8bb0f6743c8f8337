import contextlib
import struct

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.mutate import mutated
from weir_sidecar.wire import dns as wire

LABELS = st.lists(st.binary(min_size=1, max_size=20), max_size=8)


def query(name="www.Example.test.", rdtype="A", **options) -> bytes:
    return dns.message.make_query(name, rdtype, **options).to_wire()


def answer(text: str, name="www.example.test.", rdtype="A", **options) -> tuple[bytes, bytes]:
    """A query and its answer, whose records are given as master file lines of the answer section."""
    asked = dns.message.make_query(name, rdtype, **options)
    reply = dns.message.make_response(asked)
    reply.answer = dns.message.from_text(f"id 1\nflags QR\n;ANSWER\n{text}", one_rr_per_rrset=True).answer
    return asked.to_wire(), reply.to_wire()


def test_reads_the_question() -> None:
    data = query(rdtype="AAAA", use_edns=0)
    assert wire.parse_query(data) == wire.Question("www.example.test", 28, 1, 12 + 18 + 4)


def test_the_root_has_an_empty_name() -> None:
    assert wire.parse_query(query(".", "NS")).name == ""


@given(LABELS, st.integers(0, 65535), st.integers(0, 65535))
def test_reads_the_same_name_as_dnspython(labels: list[bytes], qtype: int, qclass: int) -> None:
    name = dns.name.Name([*labels, b""])
    data = struct.pack("!HHHHHH", 1, 0x100, 1, 0, 0, 0) + name.to_wire() + struct.pack("!HH", qtype, qclass)
    question = wire.parse_query(data)
    assert (question.qtype, question.qclass, question.end) == (qtype, qclass, len(data))
    dots = sum(label.count(b".") for label in labels)
    assert question.name.count(".") == max(len(labels) - 1, 0) + dots
    if all(byte in b"abcxyz0129-_" for label in labels for byte in label.lower()):
        assert question.name == name.to_text(omit_final_dot=True).lower().removesuffix(".")


def test_a_dot_inside_a_label_does_not_make_another_name() -> None:
    name = dns.name.Name([b"www.example", b"test", b""])
    data = struct.pack("!HHHHHH", 1, 0x100, 1, 0, 0, 0) + name.to_wire() + b"\0\1\0\1"
    assert wire.parse_query(data).name == r"www\.example.test"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        query()[:11],
        query()[:-1],
        query() + b"\0",
        query(use_edns=0)[:-1],
        query()[:2] + b"\x81\x00" + query()[4:],  # an answer
        query()[:4] + b"\0\0" + query()[6:],  # no question
        query()[:4] + b"\0\2" + query()[6:],  # two
        query()[:12] + b"\xc0\x0c" + b"\0\1\0\1",  # a name that points at itself
        query()[:12] + b"\x3fa" * 10,
        query()[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",  # 257 bytes of name
    ],
)
def test_refuses_what_is_no_query(data: bytes) -> None:
    with pytest.raises(wire.MalformedDNS):
        wire.parse_query(data)


def test_mutated_messages_raise_nothing_else() -> None:
    asked, _ = SAMPLE
    for message in mutated(SAMPLES):
        refused(message)
        question = wire.parse_query(asked)
        wire.addresses(message, question)
        if wire.answers(message, asked, question):
            with contextlib.suppress(wire.MalformedDNS):
                wire.ages(message, question)


@given(st.binary(max_size=80))
def test_any_bytes_raise_nothing_else(message: bytes) -> None:
    refused(message)


def refused(message: bytes) -> None:
    try:
        question = wire.parse_query(message)
    except wire.MalformedDNS:
        return
    answer = wire.refusal(message, question, wire.REFUSED)
    if dns.opcode.from_flags(int.from_bytes(message[2:4])) != dns.opcode.UPDATE:  # dnspython is strict about these
        dns.message.from_wire(answer)


def test_an_answer_has_the_question_in_any_case() -> None:
    asked, reply = answer("www.example.test. 60 IN A 192.0.2.1")
    question = wire.parse_query(asked)
    assert wire.answers(reply, asked, question)
    assert wire.answers(reply.replace(b"example", b"ExAmPlE"), asked, question)
    assert not wire.answers(reply.replace(b"example", b"axample"), asked, question)
    assert not wire.answers(asked, asked, question)
    other_type = answer("www.example.test. 60 IN A 192.0.2.1", rdtype="TXT")[1]
    assert not wire.answers(other_type, asked, question)


def test_type_65_is_not_type_97_in_lower_case() -> None:
    asked = query(rdtype=dns.rdatatype.HTTPS)
    reply = bytearray(query(rdtype=dns.rdatatype.RdataType.make(97)))
    reply[2] |= 0x80
    assert not wire.answers(bytes(reply).replace(b"www", b"WWW"), asked, wire.parse_query(asked))


def test_an_error_may_come_without_the_question() -> None:
    asked = query()
    question = wire.parse_query(asked)
    assert wire.answers(asked[:2] + b"\x81\x01" + bytes(8), asked, question)
    assert not wire.answers(asked[:2] + b"\x81\x00" + bytes(8), asked, question)


def test_learns_addresses_through_cnames_with_the_shortest_ttl() -> None:
    asked, reply = answer(
        "www.example.test. 300 IN CNAME cdn.example.test.\n"
        "cdn.example.test. 20 IN CNAME edge.example.net.\n"
        "edge.example.net. 60 IN A 192.0.2.1\n"
        "edge.example.net. 60 IN A 192.0.2.2\n"
    )
    packed, ttl = wire.addresses(reply, wire.parse_query(asked))
    assert packed == [bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))]
    assert ttl == 20


def test_learns_the_hints_of_https_records() -> None:
    asked, reply = answer(
        "www.example.test. 60 IN HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1",
        rdtype="HTTPS",
    )
    packed, ttl = wire.addresses(reply, wire.parse_query(asked))
    assert [len(address) for address in packed] == [4, 4, 16]
    assert ttl == 60


def test_other_records_give_no_addresses() -> None:
    asked, reply = answer('www.example.test. 1 IN TXT "a"\nwww.example.test. 1 IN MX 1 m.example.test.', rdtype="ANY")
    assert wire.addresses(reply, wire.parse_query(asked))[0] == []


def test_a_cut_answer_gives_what_was_read() -> None:
    asked, reply = answer("www.example.test. 60 IN A 192.0.2.1\nwww.example.test. 60 IN A 192.0.2.2")
    assert wire.addresses(reply[:-1], wire.parse_query(asked))[0] == [bytes((192, 0, 2, 1))]


@pytest.mark.parametrize("rcode", [wire.NXDOMAIN, wire.REFUSED])
@pytest.mark.parametrize("rdtype", ["A", "AAAA", "HTTPS", "ANY"])
def test_a_refusal_is_an_answer_that_clients_accept(rcode: int, rdtype: str) -> None:
    asked = dns.message.make_query("Www.Example.test.", rdtype, want_dnssec=True)
    data = asked.to_wire()
    reply = dns.message.from_wire(wire.refusal(data, wire.parse_query(data), rcode))
    assert asked.is_response(reply)
    assert reply.rcode() == rcode
    assert reply.question[0].name.labels[0] == b"Www"
    assert reply.edns == 0
    assert reply.ednsflags & dns.flags.DO
    assert [option.otype for option in reply.options] == [15]
    assert not reply.answer


def test_a_refusal_has_no_edns_where_the_query_had_none() -> None:
    data = query()
    assert dns.message.from_wire(wire.refusal(data, wire.parse_query(data), wire.REFUSED)).edns == -1


def test_ages_of_positive_negative_and_unkeepable_answers() -> None:
    asked, reply = answer("www.example.test. 60 IN A 192.0.2.1\nwww.example.test. 50 IN A 192.0.2.2", use_edns=0)
    question = wire.parse_query(asked)
    ages = wire.ages(reply, question)
    assert ages is not None
    assert ages.lifetime == 50
    assert [int.from_bytes(reply[at : at + 4]) for at in ages.offsets] == [60, 50]
    truncated = reply[:2] + bytes((reply[2] | 2,)) + reply[3:]
    assert wire.ages(truncated, question) is None
    assert wire.ages(reply[:3] + bytes((reply[3] | 2,)) + reply[4:], question) is None
    nothing = dns.message.make_response(dns.message.from_wire(asked))
    nothing.set_rcode(dns.rcode.NXDOMAIN)
    assert wire.ages(nothing.to_wire(), question) is None
    soa = "example.test. 900 IN SOA ns.example.test. root.example.test. 1 2 3 4 30"
    nothing.authority = dns.message.from_text(f"id 1\nflags QR\n;AUTHORITY\n{soa}").authority
    ages = wire.ages(nothing.to_wire(), question)
    assert ages is not None
    assert ages.lifetime == 30


SAMPLE = answer(
    "www.example.test. 300 IN CNAME cdn.example.test.\n"
    "cdn.example.test. 60 IN A 192.0.2.1\n"
    "cdn.example.test. 60 IN HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1",
    use_edns=0,
)
SAMPLES = [*SAMPLE, query(rdtype="HTTPS", use_edns=0, want_dnssec=True), query(".", "NS")]
