"""TLS towards the client: a context for each mirrored leaf, and the alerts that end a flow before a handshake."""

import datetime as dt
from collections import OrderedDict
from socket import socket

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from weir_sidecar.certs.leaf import LeafMinter
from weir_sidecar.edge.tls_session import Session, new_context

_CONTEXTS = 1024
_ALERT_RECORD = b"\x15\x03\x03\x00\x02\x02"

BAD_CERTIFICATE = 42
CERTIFICATE_EXPIRED = 45
UNKNOWN_CA = 48
ACCESS_DENIED = 49

_ALERT_OF_VERIFY_ERROR = {9: CERTIFICATE_EXPIRED, 10: CERTIFICATE_EXPIRED} | dict.fromkeys(
    (2, 18, 19, 20, 21), UNKNOWN_CA
)
"""X509_V_ERR numbers whose meaning an alert can carry; all others are a bad certificate."""


class ClientTLS:
    """Makes sessions towards clients, with leaves that mirror the upstream's certificate."""

    def __init__(self, minter: LeafMinter) -> None:
        self._minter = minter
        self._contexts: OrderedDict[bytes, tuple[SSL.Context, dt.datetime]] = OrderedDict()

    def session(
        self, sock: socket, upstream: x509.Certificate, version: str | None, alpn: bytes | None, now: dt.datetime
    ) -> Session:
        """A session that speaks the version and the protocol that were agreed with the upstream."""
        session = Session(self._context(upstream, now), sock)
        session.alpn = alpn
        session.connection.set_options(SSL.OP_NO_TLSv1_3 if version == "1.2" else SSL.OP_NO_TLSv1_2)
        session.connection.set_accept_state()
        return session

    def _context(self, upstream: x509.Certificate, now: dt.datetime) -> SSL.Context:
        fingerprint = upstream.fingerprint(hashes.SHA256())
        known = self._contexts.get(fingerprint)
        if known is not None and now < known[1]:
            self._contexts.move_to_end(fingerprint)
            return known[0]
        leaf = self._minter.mirror(upstream, now)
        context = new_context()
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_alpn_select_callback(_select_alpn)
        context.use_certificate(leaf)
        context.use_privatekey(self._minter.key)
        for intermediate in self._minter.chain:
            context.add_extra_chain_cert(intermediate)
        # Renewed at half its life, so that no client sees a leaf that is about to end.
        self._contexts[fingerprint] = (context, now + (leaf.not_valid_after_utc - now) / 2)
        if len(self._contexts) > _CONTEXTS:
            self._contexts.popitem(last=False)
        return context


def _select_alpn(connection: SSL.Connection, offered: list[bytes]) -> bytes | SSL._NoOverlappingProtocols:
    agreed: bytes | None = connection.get_app_data().alpn
    return agreed if agreed is not None and agreed in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def alert_record(alert: int) -> bytes:
    """A fatal alert in the clear, as a server sends it in answer to a ClientHello (RFC 8446, section 6)."""
    return _ALERT_RECORD + bytes((alert,))


def alert_for(verify_error: int) -> int:
    """The alert that tells the client what was wrong with the upstream's certificate."""
    return _ALERT_OF_VERIFY_ERROR.get(verify_error, BAD_CERTIFICATE)
