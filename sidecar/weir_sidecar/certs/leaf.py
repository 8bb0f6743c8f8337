"""Leaves: certificates for the client that mirror what the upstream showed, signed by the pod's CA."""

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from weir_sidecar.certs.authority import LEAF_KEY_USAGE, Authority

_BACKDATE = dt.timedelta(days=1)


class LeafMinter:
    """Mints leaves. One key serves all leaves of a process: it lives in memory and ends with it."""

    def __init__(self, authority: Authority, lifetime: dt.timedelta) -> None:
        self._authority = authority
        self._lifetime = lifetime
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._public = self.key.public_key()
        self.chain = authority.intermediates
        """What is sent to the client after a leaf."""
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._public)

    def mirror(self, upstream: x509.Certificate, now: dt.datetime) -> x509.Certificate:
        """A leaf with the names of `upstream` and no others, so that the client's own check of the name means what it did.

        Never valid for longer than the upstream's certificate or the CA, and never before either. `now` is aware, in UTC.
        """
        authority = self._authority
        not_before = max(upstream.not_valid_before_utc, authority.certificate.not_valid_before_utc, now - _BACKDATE)
        not_after = min(upstream.not_valid_after_utc, authority.not_valid_after, now + self._lifetime)
        subject = _subject(upstream)
        names = _subject_alternative_names(upstream)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .public_key(self._public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(not_before, not_after))
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(LEAF_KEY_USAGE, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(self._identifier, critical=False)
        )
        if names is not None:
            # RFC 5280, 4.2.1.6: critical where the subject is empty.
            builder = builder.add_extension(names, critical=not subject.rdns)
        return self._authority.sign(builder)


def _subject_alternative_names(upstream: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        names = upstream.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return None
    # Only what names a server; a mail address or a directory name says nothing to a TLS client.
    kept = [name for name in names if isinstance(name, x509.DNSName | x509.IPAddress | x509.UniformResourceIdentifier)]
    return x509.SubjectAlternativeName(kept) if kept else None


def _subject(upstream: x509.Certificate) -> x509.Name:
    """The common name alone: the rest of the subject is an identity that we have not verified."""
    common = upstream.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[0].value)] if common else [])
