"""How real clients end a TLS connection: those that distrust the CA (as measured), and those that merely look like it."""

from weir_sidecar.core.tls_outcome import ClientEnd, ClientSide


def refused(alert: int) -> ClientSide:
    """A fatal alert in answer to our Certificate."""
    return ClientSide(ClientEnd.ALERT, alert=alert, certificate_sent=True, seconds_after_flight=0.002)


def broke_off(end: ClientEnd, seconds: float = 0.001) -> ClientSide:
    """Left in the middle of the handshake."""
    return ClientSide(end, certificate_sent=True, seconds_after_flight=seconds)


def left(end: ClientEnd, seconds: float = 0.001) -> ClientSide:
    """Left after a completed handshake."""
    return ClientSide(end, certificate_sent=True, handshake_completed=True, seconds_after_flight=seconds)


def spoke(end: ClientEnd = ClientEnd.OPEN, alert: int | None = None) -> ClientSide:
    return ClientSide(
        end,
        alert=alert,
        certificate_sent=True,
        handshake_completed=True,
        application_bytes=78,
        seconds_after_flight=0.01,
    )


NSS_12 = ClientSide(
    ClientEnd.ALERT, alert=48, certificate_sent=True, handshake_completed=True, seconds_after_flight=0.001
)

DISTRUSTING: dict[str, tuple[ClientSide, ClientSide]] = {
    # client: (TLS 1.2, TLS 1.3)
    "curl, sync Python on OpenSSL, rustls": (refused(48), refused(48)),
    "Go, gnutls-cli": (refused(42), refused(42)),
    "Java HttpsURLConnection": (refused(46), refused(46)),
    "NSS": (NSS_12, refused(48)),
    "Python asyncio, uvloop": (broke_off(ClientEnd.FIN), broke_off(ClientEnd.FIN)),
    "Java HttpClient": (broke_off(ClientEnd.FIN, 0.12), broke_off(ClientEnd.FIN)),
    "Node": (left(ClientEnd.FIN), broke_off(ClientEnd.FIN)),
    "BoringSSL, wget on GnuTLS": (left(ClientEnd.FIN), left(ClientEnd.RST)),
    "git on GnuTLS": (left(ClientEnd.CLOSE_NOTIFY), left(ClientEnd.CLOSE_NOTIFY)),
    "gRPC core": (broke_off(ClientEnd.FIN), broke_off(ClientEnd.FIN)),
    "AWS CRT (s2n), in the end": (broke_off(ClientEnd.CLOSE_NOTIFY, 27.0), broke_off(ClientEnd.CLOSE_NOTIFY, 29.0)),
    "AWS CRT (s2n), meanwhile": (broke_off(ClientEnd.OPEN, 4.0), broke_off(ClientEnd.OPEN, 4.0)),
}

BEFORE_CERTIFICATE = ClientSide(ClientEnd.RST)
PRECONNECTED = left(ClientEnd.OPEN, 0.25)
PRECONNECTED_GONE = left(ClientEnd.FIN, 10.0)
HEALTH_CHECK = left(ClientEnd.CLOSE_NOTIFY)
CANCELLED_MIDWAY = broke_off(ClientEnd.RST)
