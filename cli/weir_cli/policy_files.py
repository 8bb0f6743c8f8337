"""Policy files for `run`, `render` and `explain`: reads them and the roots they name, and says what is wrong with them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates

from weir_operator.arrange import Arranged, arrange
from weir_operator.check import notices, problems
from weir_operator.compile import Injection, compile_injection, compile_policies
from weir_operator.load import Loaded, load
from weir_operator.models import Document
from weir_operator.nodes import MAX_BYTES
from weir_operator.problems import PolicyError, Problem
from weir_sidecar.contract.config import SidecarConfig

STDIN = "-"


class Compiled(msgspec.Struct, frozen=True):
    """What policy files come to: the sidecar's config, the trust to inject, and what had no effect, one line each."""

    config: SidecarConfig
    injection: Injection
    notices: tuple[str, ...]


def add_argument(parser: argparse._ActionsContainer) -> None:
    """Add `-f FILE`, which may be given several times."""
    parser.add_argument(
        "-f",
        "--file",
        dest="files",
        metavar="FILE",
        action="append",
        default=[],
        help="a file of policies, or - for standard input; may be given several times",
    )


def read(files: Sequence[str]) -> Compiled:
    """Compile the policies in `files`; no file is the default. Raises `PolicyError` with all that is wrong."""
    loaded: list[Loaded[Document]] = []
    wrong: list[Problem] = []
    for file in files:
        try:
            loaded += load(_bytes(file), file)
        except PolicyError as error:
            wrong += error.problems
    if wrong:
        raise PolicyError(wrong)
    arranged = arrange(loaded)
    wrong = problems(arranged)
    roots = _roots(arranged, wrong)
    if wrong:
        raise PolicyError(wrong)
    return Compiled(compile_policies(arranged, roots), compile_injection(arranged), tuple(notices(arranged)))


def report_notices(compiled: Compiled) -> None:
    """Say on standard error what the policies ask for that has no effect here."""
    for notice in compiled.notices:
        print(f"weir: {notice}", file=sys.stderr)


def read_or_report(files: Sequence[str]) -> Compiled | None:
    """As `read`; what is wrong is printed, and None means: exit with status 2, having done nothing."""
    try:
        return read(files)
    except PolicyError as error:
        for problem in error.problems:
            print(f"weir: {problem}", file=sys.stderr)
        return None


def _roots(arranged: Arranged, wrong: list[Problem]) -> dict[tuple[str, str], str]:
    """The PEM text of every root that is a file, relative to its policy file; adds what is wrong to `wrong`."""
    found: dict[tuple[str, str], str] = {}
    for trust in arranged.trust:
        for number, root in enumerate(trust.document.spec.upstream.roots or ()):
            if root.file is None:
                continue
            path = f"spec.upstream.roots[{number}].file"
            base = Path() if trust.file == STDIN else Path(trust.file).parent
            try:
                found[trust.file, root.file] = _pem(base / root.file)
            except OSError as error:
                wrong.append(trust.problem(path, f"found {root.file!r}, which cannot be read: {error.strerror}"))
            except ValueError:
                text = f"found {root.file!r}, which holds no certificates; allowed: a file of certificates in PEM form"
                wrong.append(trust.problem(path, text))
    return found


def _pem(path: Path) -> str:
    """A file's certificates, and only those: a key beside them stays where it is. Raises OSError or ValueError."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    certificates = load_pem_x509_certificates(data)
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def _bytes(file: str) -> bytes:
    """A policy file's content, one byte more than allowed at most: `load` says what is too long."""
    try:
        if file == STDIN:
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        with Path(file).open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError([Problem(file, None, "", f"cannot be read: {error.strerror}")]) from error
