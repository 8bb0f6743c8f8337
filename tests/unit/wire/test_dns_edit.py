import struct

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.mutate import mutated
from weir_sidecar.wire.dns import MalformedDNS, parse_query
from weir_sidecar.wire.dns_edit import may_bind_services, strip

ECH = 'ech="AAT+DQAA"'

OTHERS = (
    ";AUTHORITY\n"
    "example.test. 60 IN NS ns1.example.test.\n"
    "example.test. 60 IN SOA ns1.example.test. root.example.test. 1 2 3 4 5\n"
    "example.test. 60 IN RRSIG HTTPS 13 2 60 20300101000000 20200101000000 1 example.test. c2lnbmF0dXJl\n"
    ";ADDITIONAL\n"
    "ns1.example.test. 60 IN A 192.0.2.53\n"
    "example.test. 60 IN MX 10 mail.example.test.\n"
    "_x._tcp.example.test. 60 IN SRV 1 2 3 ns1.example.test.\n"
    "example.test. 60 IN DNAME other.example.test.\n"
    'example.test. 60 IN TXT "some text"\n'
)


def message(*records: str, others: str = OTHERS) -> bytes:
    lines = "".join(f"Svc.example.test. 60 IN {record}\n" for record in records)
    text = f"id 7\nflags QR RD RA AD\nedns 0\neflags DO\npayload 1232\n;QUESTION\nSvc.example.test. IN HTTPS\n;ANSWER\n{lines}{others}"
    return dns.message.from_text(text).to_wire()


def stripped(data: bytes, *, ech: bool = True, h3: bool = True) -> bytes:
    return strip(data, 12 + 18 + 4, ech=ech, h3=h3)


def parameters(data: bytes) -> list[str]:
    parsed = dns.message.from_wire(data)
    return sorted(rdata.to_text() for rrset in parsed.answer if rrset.rdtype in (64, 65) for rdata in rrset)


@pytest.mark.parametrize(
    ("record", "ech", "h3", "expected"),
    [
        (f'HTTPS 1 . alpn="h2,h3" {ECH} ipv4hint="192.0.2.1"', True, True, ['1 . alpn="h2" ipv4hint="192.0.2.1"']),
        (f'HTTPS 1 . alpn="h2,h3" {ECH}', True, False, ['1 . alpn="h2,h3"']),
        ('HTTPS 1 . alpn="h3,h2,h3-29"', False, True, ['1 . alpn="h2"']),
        ('HTTPS 1 . alpn="h3"', True, True, ["1 ."]),
        ('HTTPS 1 . alpn="h3" no-default-alpn', True, True, []),
        ('HTTPS 1 . mandatory="alpn,ech" alpn="h2" ech="AAT+DQAA"', True, True, ['1 . mandatory="alpn" alpn="h2"']),
        ('HTTPS 1 . mandatory="ech" ech="AAT+DQAA"', True, True, ["1 ."]),
        ('SVCB 2 x.example.test. alpn="h3,dot" port="8443"', True, True, ['2 x.example.test. alpn="dot" port="8443"']),
        ("HTTPS 0 y.example.test.", True, True, ["0 y.example.test."]),
    ],
)
def test_takes_out_what_it_is_told_to(record: str, ech: bool, h3: bool, expected: list[str]) -> None:
    assert parameters(stripped(message(record), ech=ech, h3=h3)) == expected


def test_everything_else_stays_the_same() -> None:
    data = message(f'HTTPS 1 . alpn="h2,h3" {ECH}', f'HTTPS 2 Svc2.example.test. alpn="h2" {ECH}')
    before, after = dns.message.from_wire(data), dns.message.from_wire(stripped(data))
    assert after.id == before.id
    assert after.flags == before.flags & ~dns.flags.AD
    assert (after.edns, after.ednsflags, after.payload) == (before.edns, before.ednsflags, before.payload)
    assert after.question == before.question
    assert after.question[0].name.labels[0] == b"Svc"
    assert after.authority == before.authority
    assert after.additional == before.additional
    assert len(stripped(data)) < len(data)


def test_nothing_to_take_out_is_the_same_object() -> None:
    data = message('HTTPS 1 . alpn="h2" ipv4hint="192.0.2.1"')
    assert stripped(data) is data


def test_a_record_that_clients_must_reject_is_left_out() -> None:
    data = message('HTTPS 1 . port="443"', 'HTTPS 1 . alpn="h2"').replace(b"\0\3\0\2\1\xbb", b"\0\3\0\3\1\xbb")
    found = [rdata for rrset in dns.message.from_wire(stripped(data)).answer for rdata in rrset]
    assert [rdata.to_text() for rdata in found] == ['1 . alpn="h2"']


def test_only_messages_with_such_records_are_looked_at() -> None:
    assert may_bind_services(message("HTTPS 1 ."))
    assert may_bind_services(message("SVCB 1 ."))
    plain = dns.message.make_query("www.example.test", "AAAA").to_wire()
    assert not may_bind_services(plain)


NAMES = st.builds(
    lambda labels: ".".join(labels) + ".",
    st.lists(st.sampled_from(["a", "B", "cc", "example", "test", "x" * 60]), min_size=1, max_size=4),
)
RECORDS = st.one_of(
    st.builds("{} 60 IN CNAME {}".format, NAMES, NAMES),
    st.builds("{} 60 IN MX 10 {}".format, NAMES, NAMES),
    st.builds("{} 60 IN SOA {} {} 1 2 3 4 5".format, NAMES, NAMES, NAMES),
    st.builds("{} 60 IN SRV 1 2 3 {}".format, NAMES, NAMES),
    st.builds("{} 60 IN RP {} {}".format, NAMES, NAMES, NAMES),
    st.builds("{} 60 IN A 192.0.2.1".format, NAMES),
    st.builds("{} 60 IN HTTPS 1 {} alpn=h2,h3 ech=AAT+DQAA".format, NAMES, NAMES),
    st.builds("{} 60 IN HTTPS 2 . alpn=h3 no-default-alpn".format, NAMES),
)


@given(NAMES, st.lists(RECORDS, max_size=8), st.lists(RECORDS, max_size=4))
def test_rewriting_agrees_with_dnspython(name: str, first: list[str], second: list[str]) -> None:
    text = "id 7\nflags QR\n;QUESTION\n{} IN HTTPS\n;ANSWER\n{}\n;ADDITIONAL\n{}\n"
    parsed = dns.message.from_text(text.format(name, "\n".join(first), "\n".join(second)), one_rr_per_rrset=True)
    data = parsed.to_wire()
    asked = dns.message.make_query(name, "HTTPS").to_wire()
    after = dns.message.from_wire(strip(data, parse_query(asked).end, ech=True, h3=True), one_rr_per_rrset=True)
    for before, now in ((parsed.answer, after.answer), (parsed.additional, after.additional)):
        expected = [
            rrset.to_text().replace('"h2,h3"', '"h2"').replace(' ech="AAT+DQAA"', "")
            for rrset in before
            if "no-default-alpn" not in rrset.to_text()
        ]
        assert [rrset.to_text() for rrset in now] == expected


def test_mutated_messages_raise_only_what_is_declared() -> None:
    changed = 0
    for data in mutated([SAMPLE]):
        try:
            result = stripped(data)
        except MalformedDNS:
            continue
        if result is not data:
            changed += 1
            assert stripped(result) is result
    assert changed > 1000


SAMPLE = message(f'HTTPS 1 . alpn="h2,h3" {ECH} ipv4hint="192.0.2.1"', 'HTTPS 2 . alpn="h3" no-default-alpn')


def _hostile(chain: bytes, last: int) -> bytes:
    """An answer with `chain` in an unknown record, an HTTPS record to edit, and thousands that point into the chain."""
    question = b"\x01a\0" + struct.pack("!HH", 65, 1)
    unknown = b"\0" + struct.pack("!HHIH", 999, 1, 0, len(chain)) + chain
    https = b"\0" + struct.pack("!HHIH", 65, 1, 0, 8) + b"\0\1\0" + struct.pack("!HH", 5, 1) + b"x"
    pointing = struct.pack("!HHHIH", 0xC000 | last, 999, 1, 0, 0)
    count = (65535 - 12 - len(question) - len(unknown) - len(https)) // len(pointing)
    return struct.pack("!HHHHHH", 1, 0x8180, 1, 2 + count, 0, 0) + question + unknown + https + pointing * count


def test_names_that_would_stop_the_loop_are_given_up() -> None:
    # Each of four thousand records has a name of eight thousand pointers: walked in full, that is seconds.
    first = 12 + 7 + 11
    offsets = range(first, 0x3FFE, 2)
    chain = b"".join(struct.pack("!H", 0xC000 | before) for before in [12, *offsets][: len(offsets)])
    message = _hostile(chain, offsets[-1])
    with pytest.raises(MalformedDNS, match="too many"):
        strip(message, 19, ech=True, h3=True)


def test_an_edit_that_outgrows_a_message_is_given_up() -> None:
    with pytest.raises(MalformedDNS, match="larger than a message"):
        strip(_hostile(b"\x01a" * 126 + b"\0", 30), 19, ech=True, h3=True)
