"""The serving certificate: what is in the Secret, and a TLS context that takes a new one without dropping a connection."""

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from typing import Any

import msgspec

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


class CertificateError(ValueError):
    """A Secret that holds no usable certificate; the text says what is wrong with it."""


class ServingCertificate(msgspec.Struct, frozen=True):
    """A kubernetes.io/tls Secret with a ca.crt: the CAs by which clients know this server; two while they rotate."""

    certificate: bytes
    key: bytes
    authorities: bytes

    def __repr__(self) -> str:
        return "ServingCertificate()"

    @property
    def rotating(self) -> bool:
        """Whether clients may still trust the old CA alone."""
        return self.authorities.count(_CERTIFICATE) > 1


def read_secret(secret: Mapping[str, Any]) -> ServingCertificate:
    """Read a v1 Secret. Raises `CertificateError` for one that is not filled yet."""
    data = secret.get("data") or {}
    try:
        parts = [base64.b64decode(data[key], validate=True) for key in ("tls.crt", "tls.key", "ca.crt")]
    except (KeyError, binascii.Error) as error:
        raise CertificateError(f"Secret {secret['metadata']['name']}: found no usable {error}") from error
    return ServingCertificate(*parts)


def server_context() -> ssl.SSLContext:
    """A context for servers, without a certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load(context: ssl.SSLContext, certificate: ServingCertificate) -> None:
    """Take a certificate: new connections get it, open ones go on. Raises `CertificateError`, then nothing is changed."""
    try:
        _load(server_context(), certificate)
        _load(context, certificate)
    except ssl.SSLError as error:
        raise CertificateError(f"tls.crt and tls.key cannot be used: {error}") from error


def _load(context: ssl.SSLContext, certificate: ServingCertificate) -> None:
    # OpenSSL's context takes files only; this one is memory, and has no name that another process could open.
    file = os.memfd_create("serving-certificate", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as memory:
            memory.write(certificate.certificate + b"\n" + certificate.key)
        context.load_cert_chain(f"/proc/self/fd/{file}", password=b"")
    finally:
        os.close(file)
