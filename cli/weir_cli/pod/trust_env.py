"""The environment of the command: the variables by which runtimes find the CA, beside those that it has already."""

import shlex
from collections.abc import Collection, Mapping

from weir_operator.compile import Injection
from weir_operator.injection.variables import BUNDLE_VARIABLES, JAVA, TrustFiles, java_option, names_trust_store
from weir_operator.injection.variables import variables as missing


def variables(environ: Mapping[str, str], files: TrustFiles, injection: Injection) -> dict[str, str]:
    """The variables to add to `environ`, as far as the policy wants them.

    One that is set stays as it is: it is somebody's wish; when it names the distribution's bundle, that is the merged
    one in the pod anyway.
    """
    added = missing(files, {name for name, value in environ.items() if value}) if injection.environment else {}
    if injection.java and not names_trust_store(environ.get(JAVA, "")):
        added[JAVA] = f"{environ.get(JAVA, '')} {java_option(files)}".strip()
    return added


def kept(environ: Mapping[str, str], covered: Collection[str]) -> tuple[str, ...]:
    """The variables that are set to something else than a covered path: such programs will not trust the CA."""
    return tuple(name for name in BUNDLE_VARIABLES if environ.get(name) and environ[name] not in covered)


def shell_text(added: Mapping[str, str]) -> str:
    """The variables as lines for a shell to read, for commands started with `ip netns exec`."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in added.items())
