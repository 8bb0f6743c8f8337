"""`weir status`: a cluster's policies, how many pods they select, how many are captured and run the newest config."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from weir_cli.cluster import kubectl, policies
from weir_cli.cluster.kubectl import KubectlError
from weir_cli.text import printable, table

_HEAD = ("POLICY", "ACCEPTED", "PROGRAMMED", "SELECTED", "CAPTURED", "CURRENT", "MISSED")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    kubectl.add_arguments(parser)
    parser.add_argument("-o", dest="output", choices=("table", "json"), default="table", help="default: table")


def run(args: argparse.Namespace) -> int:
    """Print it. Status 1: a policy is not accepted, pods are missed, or the cluster cannot be asked."""
    cluster = kubectl.from_arguments(args)
    try:
        found = policies.all_of(cluster, cluster.namespace)
    except KubectlError as error:
        print(f"weir status: {printable(str(error))}", file=sys.stderr)
        return 1
    if args.output == "json":
        print(json.dumps([_plain(one) for one in found], indent=2))
    elif not found:
        print("there is no policy, so no pod is captured; docs/policy.md has some to begin with")
    else:
        print(table(_HEAD, map(_row, found)))
        for line in _troubles(found):
            print(printable(line))
    return 1 if any(True for _ in _troubles(found)) else 0


def _row(policy: dict[str, Any]) -> tuple[str, ...]:
    pods = _status(policy).get("pods") or {}
    counts = [str(pods.get(name, "")) for name in ("selected", "captured", "current", "missed")]
    return (_name(policy), _condition(policy, "Accepted"), _condition(policy, "Programmed"), *counts)


def _troubles(found: list[dict[str, Any]]) -> Iterator[str]:
    """What somebody should look at, one line each."""
    for policy in found:
        for condition in _status(policy).get("conditions") or ():
            if (condition["type"], condition["status"]) == ("Accepted", "False"):
                yield f"{_name(policy)} is not accepted: {condition.get('message', '')}"
        for pod in _status(policy).get("missed") or ():
            yield f"{_name(policy)} misses pod {pod['namespace']}/{pod['name']}: {pod['reason']}"


def _condition(policy: dict[str, Any], kind: str) -> str:
    """A condition's status; empty: there is none; a question mark: it is about an older generation."""
    for condition in _status(policy).get("conditions") or ():
        if condition["type"] == kind:
            old = condition.get("observedGeneration", 0) < policy["metadata"].get("generation", 0)
            return f"{condition['status']}{'?' if old else ''}"
    return ""


def _status(policy: dict[str, Any]) -> dict[str, Any]:
    return policy.get("status") or {}


def _name(policy: dict[str, Any]) -> str:
    metadata = policy["metadata"]
    return "/".join(part for part in (policy["kind"], metadata.get("namespace"), metadata["name"]) if part)


def _plain(policy: dict[str, Any]) -> dict[str, Any]:
    metadata = policy["metadata"]
    about = {name: metadata.get(name) for name in ("namespace", "name", "generation")}
    return {"kind": policy["kind"], **about, "status": _status(policy)}
