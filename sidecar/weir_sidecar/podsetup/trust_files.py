"""What applications need to trust the CA, in every form that they read. Pure: certificates in, files out.

docs/trust.md says who reads which.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from weir_sidecar.certs import bundle, truststore
from weir_sidecar.contract import pod as paths


class TrustFiles(msgspec.Struct, frozen=True):
    """`files` by name; in the directory `paths.CERTS` the files `hashed` and the links `links`."""

    files: Mapping[str, bytes]
    hashed: Mapping[str, bytes]
    links: Mapping[str, str]
    certificates: int
    """How many the bundle has."""


def make(roots: Sequence[bytes], authorities: Sequence[x509.Certificate], directory: str) -> TrustFiles:
    """The files for PEM texts of public `roots` and the CAs, as they will be found in `directory`.

    The same arguments give the same bytes. Raises `BundleError`.
    """
    own = [authority.public_bytes(Encoding.DER) for authority in authorities]
    authorities_pem = bundle.to_pem(own)
    trusted = bundle.united(*roots, authorities_pem)
    hashed = _hashed(authorities)
    created = authorities[0].not_valid_before_utc.timestamp()
    return TrustFiles(
        files={
            paths.BUNDLE: bundle.to_pem(trusted),
            paths.CA: authorities_pem,
            paths.TRUST_STORE: truststore.serialize(trusted, created),
            paths.CHROMIUM_POLICY: _json({"CACertificates": [base64.b64encode(der).decode() for der in own]}),
            paths.FIREFOX_POLICY: _json(
                {"policies": {"Certificates": {"Install": [f"{directory}/{paths.CERTS}/{n}" for n in hashed]}}}
            ),
        },
        hashed=hashed,
        # A whole bundle in one file: OpenSSL never asks for this name, but Go reads every file of SSL_CERT_DIR.
        links={paths.BUNDLE: f"../{paths.BUNDLE}"},
        certificates=len(trusted),
    )


def _hashed(authorities: Iterable[x509.Certificate]) -> dict[str, bytes]:
    """A file for each, by the name that OpenSSL looks for: the subject's hash and a number (openssl-rehash(1))."""
    files: dict[str, bytes] = {}
    for authority in authorities:
        subject = crypto.X509.from_cryptography(authority).subject_name_hash()
        number = sum(name.startswith(f"{subject:08x}.") for name in files)
        files[f"{subject:08x}.{number}"] = authority.public_bytes(Encoding.PEM)
    return files


def _json(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"
