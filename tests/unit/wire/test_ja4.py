"""Expected values are those of the published description (FoxIO, technical_details/JA4.md) where it has one."""

from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_sidecar.wire.clienthello import GREASE, ClientHello, parse
from weir_sidecar.wire.ja4 import ja4

HELLOS = Path(__file__).parent / "hellos"


def codes(text):
    return tuple(int(code, 16) for code in text.split(","))


PUBLISHED = ClientHello(
    legacy_version=0x0303,
    versions=(0x0304, 0x0303),
    ciphers=codes("1301,1302,1303,c02b,c02f,c02c,c030,cca9,cca8,c013,c014,009c,009d,002f,0035"),
    extensions=codes("001b,0000,0033,0010,4469,0017,002d,000d,0005,0023,0012,002b,ff01,000b,000a,0015"),
    groups=(),
    signature_algorithms=codes("0403,0804,0401,0503,0805,0501,0806,0601"),
    sni="example.com",
    alpn=(b"h2", b"http/1.1"),
    ech=False,
)


def changed(**fields):
    return ja4(msgspec.structs.replace(PUBLISHED, **fields))


def test_the_published_example():
    assert ja4(PUBLISHED) == "t13d1516h2_8daaf6152771_e5627efa2ab1"


def test_the_published_example_without_signature_algorithms():
    assert changed(signature_algorithms=()) == "t13d1516h2_8daaf6152771_6d807ffa2a79"


def test_grease_is_ignored_everywhere():
    assert (
        changed(
            ciphers=(0x0A0A, *PUBLISHED.ciphers),
            extensions=(0x1A1A, *PUBLISHED.extensions, 0xFAFA),
            signature_algorithms=(0x2A2A, *PUBLISHED.signature_algorithms),
        )
        == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    )


def test_the_order_of_ciphers_and_extensions_does_not_matter_that_of_signature_algorithms_does():
    assert changed(ciphers=PUBLISHED.ciphers[::-1], extensions=PUBLISHED.extensions[::-1]) == ja4(PUBLISHED)
    assert changed(signature_algorithms=PUBLISHED.signature_algorithms[::-1]) != ja4(PUBLISHED)


@pytest.mark.parametrize("transport", ["t", "q", "d"])
def test_transport(transport):
    assert ja4(PUBLISHED, transport) == transport + "13d1516h2_8daaf6152771_e5627efa2ab1"


@pytest.mark.parametrize(
    ("versions", "text"),
    [
        ((0x0303, 0x0304), "13"),
        ((0x0303,), "12"),
        ((0x0302,), "11"),
        ((0x0301,), "10"),
        ((0x0300,), "s3"),
        ((0x0002,), "s2"),
        ((0xFEFF,), "d1"),
        ((0xFEFD,), "d2"),
        ((0xFEFC,), "d3"),
        ((0x7F1C, 0x0303), "00"),
        ((), "00"),
    ],
)
def test_version(versions, text):
    assert changed(versions=versions)[1:3] == text


def test_an_extension_with_a_name_that_is_none_still_says_domain():
    assert changed(sni=None)[3] == "d"
    assert changed(extensions=PUBLISHED.extensions[2:])[3:8] == "i1514"


@pytest.mark.parametrize(
    ("first", "text"),
    [
        ("6832", "h2"),
        ("687474702f312e31", "h1"),
        ("61", "aa"),
        ("ab", "ab"),
        ("20", "20"),
        ("abcd", "ad"),
        ("2061", "21"),
        ("30ab", "3b"),
        ("6120", "60"),
        ("3031abcd", "3d"),
        ("30abcd31", "01"),
    ],
)
def test_alpn(first, text):
    assert changed(alpn=(bytes.fromhex(first), b"http/1.1"))[8:10] == text


def test_no_alpn():
    assert changed(alpn=())[8:10] == "00"


def test_counts_end_at_99():
    many = tuple(range(256, 256 + 150))
    assert changed(ciphers=many, extensions=many)[4:8] == "9999"


def test_no_ciphers_and_no_extensions_are_zeros():
    assert changed(ciphers=(), extensions=(0, 16), signature_algorithms=()) == "t13d0002h2_" + "_".join(["0" * 12] * 2)


@pytest.mark.parametrize(
    ("client", "fingerprint"),
    [
        ("chrome", "t13d1516h2_8daaf6152771_806a8c22fdea"),
        ("curl", "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6"),
        ("curl-http1-ip", "t13i3111h1_e8f1e7e78f70_b26ce05bbdd6"),
        ("curl-tls12", "t12d2807h2_d943125447b4_a44c6288192a"),
        ("firefox", "t13d1717h2_5b57614c22b0_3cbfd9057e0d"),
        ("gnutls", "t13d291300_723694b0fccc_2cc26d266019"),
        ("go", "t13d1312h2_f57a46bbacb6_a089bac06eae"),
        ("grpc", "t13d0712h2_04ca88ad2b9b_fde2939304f6"),
        ("java-httpclient", "t13d3713h2_db35923f8641_7c76daad20ec"),
        ("java-urlconnection", "t13i371100_db35923f8641_7c76daad20ec"),
        ("node", "t13d5911h2_a33745022dd6_1f22a2ca17c4"),
        ("openssl-s_client", "t13d311000_e8f1e7e78f70_1f22a2ca17c4"),
        ("openssl-tls1", "t10i090500_c491f621fb4c_195413a0cc0f"),
        ("python-pyopenssl", "t13d301100_1d37bd780c83_0d46a1bf4a7c"),
        ("python-urllib", "t13d1813h1_85036bcba153_d339722ba4af"),
        ("safari", "t13d2013h2_a09f3c656075_7f0f34a4126d"),
    ],
)
def test_real_clients(client, fingerprint):
    hello = parse((HELLOS / f"{client}.bin").read_bytes())
    assert isinstance(hello, ClientHello)
    assert ja4(hello) == fingerprint


def described(hello):
    """The description word by word, over strings."""

    def hexes(values):
        return [f"{value:04x}" for value in values if f"{value:04x}" not in grease]

    def digest(text):
        return sha256(text.encode()).hexdigest()[:12] if text else "000000000000"

    grease = {f"{value:04x}" for value in GREASE}
    ciphers, extensions = hexes(hello.ciphers), hexes(hello.extensions)
    hashed = sorted(set(extensions) - {"0000", "0010"})
    algorithms = hexes(hello.signature_algorithms)
    tail = ",".join(hashed) + ("_" + ",".join(algorithms) if algorithms else "")
    first = f"t12{'d' if '0000' in extensions else 'i'}{len(ciphers):02}{len(extensions):02}00"
    return f"{first}_{digest(','.join(sorted(ciphers)))}_{digest(tail)}"


CODES = st.lists(st.sampled_from(sorted(GREASE)) | st.integers(0, 0xFFFF), max_size=40)


@given(CODES, st.lists(st.sampled_from([0, 10, 13, 16, 43]) | st.integers(0, 0xFFFF), unique=True, max_size=40), CODES)
def test_any_hello_is_fingerprinted_as_described(ciphers, extensions, algorithms):
    hello = msgspec.structs.replace(
        PUBLISHED,
        versions=(0x0303,),
        ciphers=tuple(ciphers),
        extensions=tuple(extensions),
        signature_algorithms=tuple(algorithms),
        alpn=(),
    )
    assert ja4(hello) == described(hello)
