"""The environment variables by which runtimes find the CA, for programs that do not read the distribution's bundle.

One table, for pods of a cluster and for `weir run`. docs/trust.md says which program reads which.
"""

from collections.abc import Collection

import msgspec

# Programs that take the file *instead of* their own roots: they get the merged bundle.
BUNDLE_VARIABLES = (
    "SSL_CERT_FILE",  # OpenSSL, Go, Python's ssl, httpx, Ruby, rustls-native-certs, uv
    "REQUESTS_CA_BUNDLE",  # Python requests
    "CURL_CA_BUNDLE",  # curl
    "GIT_SSL_CAINFO",  # git
    "PIP_CERT",  # pip
    "AWS_CA_BUNDLE",  # AWS CLI and SDKs
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",  # gcloud
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",  # gRPC core
    "CARGO_HTTP_CAINFO",  # cargo
    "HTTPLIB2_CA_CERTS",  # Python httplib2
    "PERL_LWP_SSL_CA_FILE",  # Perl LWP
    "DENO_CERT",  # Deno
    "NIX_SSL_CERT_FILE",  # programs from Nixpkgs
    "BUNDLE_SSL_CA_CERT",  # Ruby bundler
)
# Programs that take the file *in addition*: they get the CA alone.
_EXTRA_VARIABLES = ("NODE_EXTRA_CA_CERTS",)
_DIRECTORY = "SSL_CERT_DIR"  # OpenSSL, Go, rustls-native-certs
_DIRECTORY_GOES_WITH = "SSL_CERT_FILE"

JAVA = "JAVA_TOOL_OPTIONS"
"""Read by every JVM, which has more to find in it than a trust store: it is added to."""
_JAVA_PROPERTY = "-Djavax.net.ssl.trustStore="


class TrustFiles(msgspec.Struct, frozen=True):
    """Where a program finds the merged bundle, the CA's certificate, the Java trust store, and the hashed directory."""

    bundle: str
    authority: str
    java: str
    directory: str | None = None


def variables(files: TrustFiles, kept: Collection[str] = ()) -> dict[str, str]:
    """The variables to set, but those in `kept`: they are set already, which is somebody's wish.

    Who keeps a file of their own for OpenSSL may count on the distribution's directory beside it, so that stays too.
    """
    wanted = dict.fromkeys(BUNDLE_VARIABLES, files.bundle) | dict.fromkeys(_EXTRA_VARIABLES, files.authority)
    # Node from 22.15 can read the system's bundle, for those that have NODE_EXTRA_CA_CERTS set already.
    wanted["NODE_USE_SYSTEM_CA"] = "1"
    if files.directory is not None and _DIRECTORY_GOES_WITH not in kept:
        wanted[_DIRECTORY] = files.directory
    return {name: value for name, value in wanted.items() if name not in kept}


def java_option(files: TrustFiles) -> str:
    """The option that has a JVM read the trust store. Of two such options the later one counts."""
    return f"{_JAVA_PROPERTY}{files.java}"


def names_trust_store(options: str) -> bool:
    """Whether options for a JVM name a trust store."""
    return _JAVA_PROPERTY in options
