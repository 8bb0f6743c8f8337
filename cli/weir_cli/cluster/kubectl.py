"""Calls kubectl, which knows the user's clusters and every way to log in to them. Nothing else here talks to a cluster."""

import argparse
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgspec

_TIMEOUT = 60
_KLOG = re.compile(r"^[IWEF]\d{4} .*\n?", re.MULTILINE)
"""kubectl's own log, which says what its last line says again, at length."""


class KubectlError(Exception):
    """kubectl is missing, or could not do what it was asked; the text is its own."""


class Kubectl(msgspec.Struct, frozen=True):
    """kubectl with what the user chose. `namespace` None: the one of the current context."""

    context: str | None = None
    namespace: str | None = None
    all_namespaces: bool = False

    def json(self, *args: str) -> Any:
        """What the command prints as JSON. Raises `KubectlError`."""
        return json.loads(self.text(*args, "-o", "json"))

    def items(self, kind: str, *args: str) -> list[dict[str, Any]]:
        """Objects of a kind, in the user's namespace or in all. Raises `KubectlError`."""
        where = ("--all-namespaces",) if self.all_namespaces else ()
        found: list[dict[str, Any]] = self.json("get", kind, *where, *args)["items"]
        return found

    def text(self, *args: str, stdin: str | None = None) -> str:
        """What the command prints. Raises `KubectlError`."""
        try:
            done = subprocess.run(
                self._argv(*args), input=stdin, capture_output=True, text=True, timeout=_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(
                f"kubectl {args[0]} has not ended after {_TIMEOUT} s: is the API server there?"
            ) from error
        if done.returncode:
            raise _failed(args[0], done.stderr, done.returncode)
        return done.stdout

    def lines(self, stack: ExitStack, *args: str) -> Iterator[bytes]:
        """The lines that the command prints, as they come; the stack ends the command. Raises `KubectlError` at its end."""
        process = subprocess.Popen(self._argv(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        # Not only when the lines are closed: who reads them may be in another thread, waiting for the next.
        stack.callback(process.kill)
        return _lines(process, args[0])

    def current_namespace(self) -> str:
        """The namespace that commands are about when none is given."""
        if self.namespace is not None:
            return self.namespace
        path = "jsonpath={.contexts[0].context.namespace}"
        return self.text("config", "view", "--minify", "-o", path).strip() or "default"

    def _argv(self, *args: str) -> list[str]:
        program = shutil.which("kubectl")
        if program is None:
            raise KubectlError("kubectl is not on the PATH, and a cluster is asked through it: install it")
        context = () if self.context is None else ("--context", self.context)
        namespace = () if self.namespace is None else ("--namespace", self.namespace)
        return [program, *context, *namespace, *args]


def _lines(process: subprocess.Popen[bytes], verb: str) -> Iterator[bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield from process.stdout
        words = process.stderr.read().decode(errors="replace")
        if process.wait():
            raise _failed(verb, words, process.returncode)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _failed(verb: str, words: str, status: int) -> KubectlError:
    return KubectlError(_KLOG.sub("", words).strip() or f"kubectl {verb} ended with status {status}")


def add_arguments(parser: argparse.ArgumentParser, *, all_namespaces: bool = False) -> None:
    """Add the arguments that say which cluster and namespace are meant."""
    group = parser.add_argument_group("in a cluster")
    group.add_argument("-n", "--namespace", metavar="NS", help="default: that of kubectl's current context")
    if all_namespaces:
        group.add_argument("-A", "--all-namespaces", action="store_true", help="all namespaces")
    group.add_argument("--context", metavar="NAME", help="the context of kubectl's config to use")


def from_arguments(args: argparse.Namespace) -> Kubectl:
    """The way to the cluster that the arguments of `add_arguments` name."""
    return Kubectl(args.context, args.namespace, getattr(args, "all_namespaces", False))
