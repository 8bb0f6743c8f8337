"""The serving certificate: read from a Secret, and taken without a new context."""

import base64
import contextlib
import ssl
import subprocess
import sys

import pytest

from lab.serving import Certificates
from weir_operator.serving.certificate import CertificateError, load, read_secret, server_context


def presented(context, authorities):
    """The serial number of what a client is shown, and verifies."""
    client_in, client_out, server_in, server_out = (ssl.MemoryBIO() for _ in range(4))
    server = context.wrap_bio(server_in, server_out, server_side=True)
    client = ssl.create_default_context(cadata=authorities).wrap_bio(client_in, client_out, server_hostname="localhost")
    for _ in range(4):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            server_in.write(client_out.read())
            client_in.write(server_out.read())
    return client.getpeercert()["serialNumber"]


def test_another_certificate_is_shown_to_whoever_comes_next():
    context = server_context()
    shown = set()
    for certificates in (Certificates.new(), Certificates.new()):
        load(context, read_secret(certificates.secret()))
        shown.add(presented(context, certificates.pem))
    assert len(shown) == 2


def test_one_of_no_use_changes_nothing():
    context, good = server_context(), Certificates.new()
    load(context, read_secret(good.secret()))
    mixed = good.secret()
    mixed["data"]["tls.key"] = Certificates.new().secret()["data"]["tls.key"]
    with pytest.raises(CertificateError):
        load(context, read_secret(mixed))
    assert presented(context, good.pem)


@pytest.mark.parametrize("key", ["tls.crt", "tls.key", "ca.crt"])
def test_a_secret_that_lacks_a_part_is_named(key):
    secret = Certificates.new().secret()
    del secret["data"][key]
    with pytest.raises(CertificateError, match=rf"weir-serving.*{key}"):
        read_secret(secret)


def test_a_secret_that_is_not_filled_yet_is_none():
    with pytest.raises(CertificateError):
        read_secret({"metadata": {"name": "weir-serving"}})


def test_what_is_no_base64_is_none():
    secret = Certificates.new().secret()
    secret["data"]["tls.key"] = "?"
    with pytest.raises(CertificateError):
        read_secret(secret)


def test_two_authorities_are_a_rotation():
    old = Certificates.new()
    assert not read_secret(old.secret()).rotating
    assert read_secret(Certificates.new(old.authority).secret()).rotating


def test_no_key_is_printed():
    secret = Certificates.new().secret()
    key = base64.b64decode(secret["data"]["tls.key"]).decode()
    assert key.splitlines()[1] not in repr(read_secret(secret))


def test_tls_takes_as_little_memory_as_it_is_told():
    """`TLS_BUFFER` relies on a class attribute of asyncio that it does not promise."""
    code = (
        "import asyncio.sslproto as s, ssl, asyncio;"
        "from weir_operator.serving.server import TLS_BUFFER;"
        "s.SSLProtocol.max_size = TLS_BUFFER;"
        "made = s.SSLProtocol(asyncio.new_event_loop(), asyncio.Protocol(), ssl.create_default_context(), None);"
        "assert len(made._ssl_buffer) == TLS_BUFFER"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
