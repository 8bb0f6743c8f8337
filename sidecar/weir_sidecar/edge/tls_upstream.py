"""TLS towards the upstream: offers what the client offered, and verifies on the client's behalf.

Chain, purpose, name constraints and key strength are OpenSSL's work (X509_verify_cert(3)); names are
`certs.names`' (RFC 9525: subject alternative names only, never the common name).
"""

from collections import OrderedDict
from socket import socket

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto

from weir_sidecar.certs.bundle import certificates
from weir_sidecar.certs.names import mismatch
from weir_sidecar.edge.tls_session import Session, new_context, note_certificate_requests
from weir_sidecar.wire.clienthello import ClientHello

X25519MLKEM768 = 0x11EC
"""The hybrid group of draft-ietf-tls-ecdhe-mlkem: offered to the upstream where the client can do it too."""

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_VERIFIED_NAMES = 4096


class UpstreamTLS:
    """Makes sessions towards upstreams. One context for all: roots are parsed once and held once."""

    def __init__(self, roots_pem: tuple[bytes, ...], min_tls_version: str = "1.2") -> None:
        """Trust `roots_pem` (PEM bundles) and nothing else. Raises `BundleError` or `crypto.Error` for what is no certificate."""
        context = new_context(_VERSIONS[min_tls_version])
        context.set_verify(SSL.VERIFY_PEER)
        note_certificate_requests(context)
        store = context.get_cert_store()
        assert store is not None
        for pem in roots_pem:
            # OpenSSL's own parser: distributions carry roots that stricter ones warn about or refuse.
            for der in certificates(pem):
                store.add_cert(crypto.load_certificate(crypto.FILETYPE_ASN1, der))
        self._context = context
        self._verified: OrderedDict[tuple[bytes, tuple[str, ...]], int] = OrderedDict()

    def session(self, sock: socket, hello: ClientHello) -> Session:
        """A session on a connected socket that offers the client's name, protocols and highest version."""
        session = Session(self._context, sock)
        connection = session.connection
        if hello.sni is not None:
            connection.set_tlsext_host_name(hello.sni.encode("ascii"))
        if hello.alpn:
            connection.set_alpn_protos(list(hello.alpn))
        if hello.max_version < SSL.TLS1_3_VERSION:
            connection.set_options(SSL.OP_NO_TLSv1_3)
        if X25519MLKEM768 not in hello.groups:
            session.offer_classical_groups()
        connection.set_connect_state()
        return session

    def verify_names(self, certificate: x509.Certificate, names: tuple[str, ...]) -> int:
        """0 where the certificate names any of `names` (hosts or addresses), else the X509_V_ERR number."""
        key = (certificate.fingerprint(hashes.SHA256()), names)
        known = self._verified.get(key)
        if known is None:
            known = self._verified[key] = mismatch(certificate, names)
            if len(self._verified) > _VERIFIED_NAMES:
                self._verified.popitem(last=False)
        return known
