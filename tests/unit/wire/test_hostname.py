import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.wire.hostname import hostname


@pytest.mark.parametrize(
    ("claimed", "name"),
    [
        (b"www.example.com", "www.example.com"),
        (b"WWW.Example.COM", "www.example.com"),
        (b"example.com.", "example.com"),
        (b"XN--BCHER-KVA.Example", "xn--bcher-kva.example"),
        (b"localhost", "localhost"),
        (b"_sip._tcp.example.com", "_sip._tcp.example.com"),
        (b"r3---sn-4g5e.example.com", "r3---sn-4g5e.example.com"),
        (b"-user-.example.com", "-user-.example.com"),
        (b"10.example", "10.example"),
        (b"a" * 63 + b".example", "a" * 63 + ".example"),
        (b".".join([b"a" * 49] * 5) + b".abc", ".".join(["a" * 49] * 5) + ".abc"),
    ],
)
def test_names_are_kept_in_lower_case_without_final_dot(claimed, name):
    assert hostname(claimed) == name


@pytest.mark.parametrize(
    "claimed",
    [
        b"",
        b".",
        b"..",
        b".example.com",
        b"example..com",
        b"example.com..",
        b"exa mple.com",
        b"example.com\0.evil.com",
        b"example.com\n",
        b"*.example.com",
        b"b\xc3\xbccher.example",
        b"example.com:443",
        b"a" * 64 + b".example",
        b".".join([b"a" * 49] * 5) + b".abcd",
        b"10.0.0.1",
        b"10.0.0.1.",
        b"127.1",
        b"2130706433",
        b"0x7f000001",
        b"127.0.0.0X1",
        b"::1",
        b"[::1]",
        b"fe80::1%eth0",
    ],
)
def test_what_is_no_dns_name_is_none(claimed):
    assert hostname(claimed) is None


@given(st.binary(max_size=300) | st.from_regex(rb"[A-Za-z0-9._-]{0,300}", fullmatch=True))
def test_a_name_is_its_own_name(claimed):
    name = hostname(claimed)
    assert name is None or (hostname(name.encode()) == name and name.encode() == claimed.lower().removesuffix(b"."))
