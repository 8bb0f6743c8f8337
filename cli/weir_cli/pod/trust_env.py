"""The environment variables by which runtimes find the CA, for programs that do not read the distribution's bundle."""

import shlex
from collections.abc import Collection, Mapping

import msgspec

from weir_operator.compile import Injection

# Programs that take the file *instead of* their own roots: they get the merged bundle.
_BUNDLE = (
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
_EXTRA = ("NODE_EXTRA_CA_CERTS",)
_JAVA = "JAVA_TOOL_OPTIONS"
_JAVA_PROPERTY = "-Djavax.net.ssl.trustStore="


class TrustFiles(msgspec.Struct, frozen=True):
    """Where the command finds the merged bundle, the CA's certificate and the Java trust store."""

    bundle: str
    authority: str
    java: str


def variables(environ: Mapping[str, str], files: TrustFiles, injection: Injection) -> dict[str, str]:
    """The variables to add to `environ`, as far as the policy wants them.

    One that is set stays as it is: it is somebody's wish; when it names the distribution's bundle, that is the merged
    one in the pod anyway.
    """
    wanted = dict.fromkeys(_BUNDLE, files.bundle) | dict.fromkeys(_EXTRA, files.authority)
    # Node from 22.15 can read the system's bundle, for those that have NODE_EXTRA_CA_CERTS set already.
    wanted["NODE_USE_SYSTEM_CA"] = "1"
    added = {name: value for name, value in wanted.items() if injection.environment and not environ.get(name)}
    if injection.java and _JAVA_PROPERTY not in environ.get(_JAVA, ""):
        added[_JAVA] = f"{environ.get(_JAVA, '')} {_JAVA_PROPERTY}{files.java}".strip()
    return added


def kept(environ: Mapping[str, str], covered: Collection[str]) -> tuple[str, ...]:
    """The variables that are set to something else than a covered path: such programs will not trust the CA."""
    return tuple(name for name in _BUNDLE if environ.get(name) and environ[name] not in covered)


def shell_text(added: Mapping[str, str]) -> str:
    """The variables as lines for a shell to read, for commands started with `ip netns exec`."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in added.items())
