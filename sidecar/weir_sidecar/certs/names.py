"""Whether a certificate names a server (RFC 9525): by its subject alternative names alone, never by its common name.

Chain, purpose and validity are not looked at here.
"""

from ipaddress import ip_address

from cryptography import x509

HOSTNAME_MISMATCH = 62
IP_ADDRESS_MISMATCH = 64
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH (X509_STORE_CTX_get_error(3))."""

_LABELS_OF_A_WILDCARD = 3


def mismatch(certificate: x509.Certificate, names: tuple[str, ...]) -> int:
    """0 where the certificate names any of `names` (hosts in lower case, or addresses), else the X509_V_ERR number."""
    try:
        shown = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = {name.lower() for name in shown.get_values_for_type(x509.DNSName)}
        addresses = shown.get_values_for_type(x509.IPAddress)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        hosts, addresses = set(), []  # what cannot be read names nobody
    error = HOSTNAME_MISMATCH
    for name in names:
        try:
            address = ip_address(name)
        except ValueError:
            error = HOSTNAME_MISMATCH
            named = name in hosts or _wildcard(name) in hosts
        else:
            error = IP_ADDRESS_MISMATCH
            named = address in addresses
        if named:
            return 0
    return error


def _wildcard(host: str) -> str | None:
    """The one wildcard that stands for `host` (RFC 9525, section 6.3): its whole first label, below two at least."""
    first, _, rest = host.partition(".")
    return f"*.{rest}" if first and host.count(".") >= _LABELS_OF_A_WILDCARD - 1 else None
