from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from samples import client_hello as make
from weir_sidecar.wire.clienthello import (
    GREASE,
    MAX_BYTES,
    ClientHello,
    MalformedClientHello,
    NeedMore,
    parse,
)

HELLOS = {path.stem: path.read_bytes() for path in (Path(__file__).parent / "hellos").glob("*.bin")}
BROWSER = (
    make.extension(0x0A0A),
    make.server_name(b"www.example.com"),
    make.number_list(10, 0x1A1A, 0x11EC, 29, 23),
    make.number_list(13, 0x0403, 0x0804),
    make.alpn(b"h2", b"http/1.1"),
    make.supported_versions(0x2A2A, 0x0304, 0x0303),
    make.extension(0xFE0D, bytes(186)),
    make.extension(51, bytes(1256)),
)


def outcome(data):
    """What `parse` says, with its only declared error as a value."""
    try:
        return parse(data)
    except MalformedClientHello as error:
        return error


# What real clients send. How they were made: hellos/README.md.


@pytest.mark.parametrize(
    ("client", "sni", "alpn", "versions"),
    [
        ("chrome", "localhost", (b"h2", b"http/1.1"), (0x304, 0x303)),
        ("curl", "www.example.com", (b"h2", b"http/1.1"), (0x304, 0x303, 0x302, 0x301)),
        ("curl-http1-ip", None, (b"http/1.1",), (0x304, 0x303, 0x302, 0x301)),
        ("curl-tls12", "www.example.com", (b"h2", b"http/1.1"), (0x303,)),
        ("firefox", "localhost", (b"h2", b"http/1.1"), (0x304, 0x303)),
        ("gnutls", "www.example.com", (), (0x304, 0x303, 0x302, 0x301)),
        ("go", "localhost", (b"h2", b"http/1.1"), (0x304, 0x303)),
        ("grpc", "localhost", (b"h2",), (0x304, 0x303)),
        ("java-httpclient", "localhost", (b"h2", b"http/1.1"), (0x304, 0x303)),
        ("java-urlconnection", None, (), (0x304, 0x303)),
        ("node", "www.example.com", (b"h2", b"http/1.1"), (0x304, 0x303)),
        ("openssl-s_client", "www.example.com", (), (0x304, 0x303, 0x302, 0x301)),
        ("openssl-tls1", None, (), (0x301,)),
        ("python-pyopenssl", "www.example.com", (), (0x304, 0x303)),
        ("python-urllib", "localhost", (b"http/1.1",), (0x304, 0x303)),
        ("safari", "localhost", (b"h2", b"http/1.1"), (0x304, 0x303)),
    ],
)
def test_real_clients(client, sni, alpn, versions):
    hello = parse(HELLOS[client])
    assert isinstance(hello, ClientHello)
    assert (hello.sni, hello.alpn, hello.max_version) == (sni, alpn, versions[0])
    assert tuple(version for version in hello.versions if version >= 0x0301) == versions
    assert hello.ech == (client in ("chrome", "firefox"))
    assert hello.ciphers
    assert hello.groups
    assert bool(hello.signature_algorithms) == (hello.max_version >= 0x0303)


@pytest.mark.parametrize("client", sorted(HELLOS))
def test_every_prefix_of_a_real_hello_asks_for_more_but_never_for_more_than_there_is(client):
    hello = HELLOS[client]
    for size in range(len(hello)):
        answer = parse(hello[:size])
        assert isinstance(answer, NeedMore)
        assert size < answer.total <= len(hello)


# One made by hand: every field.


def test_every_field():
    message = make.message(*BROWSER, session_id=bytes(32), ciphers=make.numbers([0x3A3A, 0x1301, 0xC02B]))
    assert parse(make.records(message)) == ClientHello(
        legacy_version=0x0303,
        versions=(0x0304, 0x0303),
        ciphers=(0x3A3A, 0x1301, 0xC02B),
        extensions=(0x0A0A, 0, 10, 13, 16, 43, 0xFE0D, 51),
        groups=(0x1A1A, 0x11EC, 29, 23),
        signature_algorithms=(0x0403, 0x0804),
        sni="www.example.com",
        alpn=(b"h2", b"http/1.1"),
        ech=True,
    )


def test_grease_is_what_rfc_8701_lists():
    assert {f"{value:04X}" for value in GREASE} == {f"{digit}A" * 2 for digit in "0123456789ABCDEF"}


@pytest.mark.parametrize("tail", [b"", b"\0\0"])
def test_a_hello_without_extensions(tail):
    hello = parse(make.records(make.message(version=0x0301, tail=tail)))
    assert isinstance(hello, ClientHello)
    assert (hello.extensions, hello.versions, hello.max_version, hello.sni) == ((), (0x0301,), 0x0301, None)


@pytest.mark.parametrize(
    ("legacy", "versions", "highest"),
    [
        (0x0303, (0x0304, 0x0303), 0x0304),
        (0x0303, (0x0303, 0x0304), 0x0304),
        (0x0303, (0x7F1C, 0x0303), 0x0303),
        (0x0303, (0x7F1C,), 0),
        (0x0303, (0x4A4A,), 0),
        (0x0302, (), 0x0302),
        (0x0304, (), 0x0303),
    ],
)
def test_max_version(legacy, versions, highest):
    extensions = (make.supported_versions(*versions),) if versions else ()
    hello = parse(make.records(make.message(*extensions, version=legacy)))
    assert isinstance(hello, ClientHello)
    assert hello.max_version == highest


def test_a_memoryview_is_read_like_bytes():
    assert parse(memoryview(HELLOS["chrome"])) == parse(HELLOS["chrome"])


def test_what_follows_the_hello_is_not_looked_at():
    hello = make.client_hello(*BROWSER)
    assert parse(hello + make.record(b"early data", kind=23) + b"\xff") == parse(hello)


# Records.


@given(st.sampled_from(sorted(HELLOS)), st.lists(st.integers(1, 600), max_size=40))
@example("chrome", [1] * 2000)
@example("curl", [1, 2, 1])
def test_any_split_into_records_reads_the_same(client, sizes):
    hello = HELLOS[client]
    assert parse(make.records(hello[5:], sizes)) == parse(hello)


@given(st.lists(st.integers(1, 9000), max_size=12), st.integers(0, 40000))
def test_reading_just_what_was_asked_for_gets_there(sizes, padding):
    wire = make.records(make.message(*BROWSER, make.extension(21, bytes(padding))), sizes)
    size = asked = 0
    while isinstance(answer := parse(wire[:size]), NeedMore):
        assert size < answer.total <= len(wire)
        size = answer.total
        asked += 1
    assert isinstance(answer, ClientHello)
    assert asked <= 2 * (len(sizes) + 4)


def test_a_hello_of_20_kib_in_two_records():
    wire = make.client_hello(*BROWSER, make.extension(0x1234, bytes(20000)))
    assert len(wire) > 16384 + 5
    hello = parse(wire)
    assert isinstance(hello, ClientHello)
    assert hello.sni == "www.example.com"
    assert parse(wire[:9]) == NeedMore(len(wire)), "both record headers are counted from the start"


def hello_of(size):
    """A hello that ends at this byte."""
    empty = len(make.message(make.extension(0x1234)))
    overhead = 5 * -(-size // (16384 + 5))
    return make.client_hello(make.extension(0x1234, bytes(size - overhead - empty)))


def test_64_kib_is_the_limit():
    largest, larger = hello_of(MAX_BYTES), hello_of(MAX_BYTES + 1)
    assert (len(largest), len(larger)) == (MAX_BYTES, MAX_BYTES + 1)
    assert isinstance(parse(largest), ClientHello)
    for size in (9, 20000, MAX_BYTES + 1):
        assert isinstance(outcome(larger[:size]), MalformedClientHello)


def test_record_headers_count_towards_the_limit():
    message = make.message(make.extension(0x1234, bytes(20000)))
    assert isinstance(outcome(make.records(message, [1] * 20000)), MalformedClientHello)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",  # an SSLv2 hello
        b"\x16\x02",
        b"\x15\x03\x01\x00\x02\x02\x28",
        make.record(b""),
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\xff\xff",
        make.record(b"\x02"),
        make.record(b"\x01") + make.record(b"\0", kind=21),
        make.record(b"\x01") + make.record(b""),
        make.record(b"\x01\xff\xff\xff"),
    ],
)
def test_no_client_hello_at_all(data):
    assert isinstance(outcome(data), MalformedClientHello)


# The body.


@pytest.mark.parametrize(
    "message",
    [
        b"\x01\0\0\0",
        b"\x01\0\0\x22" + bytes(34),
        make.message(session_id=bytes(33)),
        make.message(ciphers=b""),
        make.message(ciphers=b"\x13"),
        make.message(compression=b""),
        make.message(tail=b"\0"),
        make.message(tail=b"\0\x01"),
        make.message(tail=b"\0\0\0"),
        make.message(tail=make.vector16(b"\0\x15\0")),
        make.message(tail=make.vector16(b"\0\x15\0\x01")),
        make.message(make.extension(21), make.extension(21)),
        make.message(make.extension(0x0A0A), make.extension(0x0A0A)),
    ],
)
def test_broken_bodies(message):
    assert isinstance(outcome(make.records(message)), MalformedClientHello)


@pytest.mark.parametrize("kind", [0, 10, 13, 16, 43])
@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0", b"\0\x02\0", b"\0\x01\0", b"\xff\xff\0\0", b"\0\x02\0\0\0"])
def test_broken_extensions(kind, data):
    assert isinstance(outcome(make.client_hello(make.extension(kind, data))), MalformedClientHello)


@pytest.mark.parametrize("sent", BROWSER[1:6], ids=["server name", "groups", "signatures", "ALPN", "versions"])
def test_a_byte_after_the_end_of_an_extension(sent):
    kind, data = int.from_bytes(sent[:2]), sent[4:]
    assert isinstance(parse(make.client_hello(make.extension(kind, data))), ClientHello)
    assert isinstance(outcome(make.client_hello(make.extension(kind, data + b"\0"))), MalformedClientHello)


@pytest.mark.parametrize(
    "names",
    [
        b"\0" + make.vector16(b""),
        b"\0" + make.vector16(b"a.example") + b"\0" + make.vector16(b"b.example"),
        b"\0" + make.vector16(b"a.example") + b"\0",
    ],
)
def test_broken_server_names(names):
    assert isinstance(outcome(make.client_hello(make.extension(0, make.vector16(names)))), MalformedClientHello)


@pytest.mark.parametrize("name", [b"10.0.0.1", b"::1", b"a\0b", b"caf\xc3\xa9.example", b"*.example", b"x" * 300])
def test_a_server_name_that_is_no_host_name_is_none_and_no_error(name):
    hello = parse(make.client_hello(make.server_name(name)))
    assert isinstance(hello, ClientHello)
    assert hello.sni is None
    assert hello.extensions == (0,)


def test_server_names_of_other_types_are_skipped():
    names = b"\x07" + make.vector16(b"\xff") + b"\0" + make.vector16(b"A.Example.")
    hello = parse(make.client_hello(make.extension(0, make.vector16(names))))
    assert isinstance(hello, ClientHello)
    assert hello.sni == "a.example"


@pytest.mark.parametrize("protocols", [(), (b"",), (b"h2", b"")])
def test_broken_alpn(protocols):
    assert isinstance(outcome(make.client_hello(make.alpn(*protocols))), MalformedClientHello)


# Anything at all.


def check_the_law(data):
    """Only the declared error; more is asked for within the limit and above what is there; more bytes never unsay."""
    answer = outcome(data)
    if isinstance(answer, NeedMore):
        assert len(data) < answer.total <= MAX_BYTES
    else:
        more = outcome(data + b"\0\x16\x03")
        assert type(more) is type(answer)
        assert more == answer or isinstance(answer, MalformedClientHello)


@given(st.binary(max_size=400))
def test_arbitrary_bytes(data):
    check_the_law(data)
    check_the_law(b"\x16\x03\x01" + data)
    check_the_law(make.records(b"\x01" + len(data).to_bytes(3) + data))


@given(st.sampled_from(sorted(HELLOS)), st.data())
def test_mutated_hellos(client, data):
    hello = bytearray(HELLOS[client])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(hello)))
        hello[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check_the_law(bytes(hello))


@given(st.binary(max_size=100))
def test_more_bytes_always_settle_it(beginning):
    data = b"\x16\x03\x01" + beginning
    while isinstance(answer := outcome(data), NeedMore):
        data += bytes(answer.total - len(data))
    assert len(data) <= MAX_BYTES
