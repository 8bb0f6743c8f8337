"""Admission: what the API server asks, and the answer. Pure; https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/."""

import base64
from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Any, Literal

import msgspec

from weir_operator.cluster import checks
from weir_operator.cluster.documents import read_object
from weir_operator.cluster.policies import Plan, PolicyKey
from weir_operator.injection.inject import Injected, LeftAlone, Refused, Settings, inject
from weir_operator.injection.json_patch import Operation, diff
from weir_operator.models import CLUSTER_KINDS, InterceptionPolicy
from weir_operator.problems import PolicyError, Problem
from weir_operator.serving.guard import objections
from weir_sidecar.contract.config import Identity

API_VERSION = "admission.k8s.io/v1"
MAX_BODY = 3 << 20
"""Bytes of a request: twice an object as large as etcd takes, old and new."""
_MAX_WARNING = 256
"""Characters; API servers may cut longer ones."""


class ReviewError(ValueError):
    """What came is no AdmissionReview; the text says what was found and what is allowed."""


class Operand(StrEnum):
    """`operation` of a request."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


class Request(msgspec.Struct, frozen=True, rename="camel"):
    """What is to be admitted. A pod that is made by a controller has no name and no namespace of its own yet."""

    uid: str
    operation: Operand
    namespace: str = ""
    name: str = ""
    sub_resource: str = ""
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None


class _Review(msgspec.Struct, frozen=True, rename="camel"):
    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: Request


class Result(StrEnum):
    """How a request was answered, for the metrics."""

    INJECTED = "injected"
    LEFT_ALONE = "left_alone"
    NOT_SELECTED = "not_selected"
    ALLOWED = "allowed"
    DENIED = "denied"


class Answer(msgspec.Struct, frozen=True):
    """The answer; `message` says why it is a denial."""

    result: Result
    message: str = ""
    warnings: tuple[str, ...] = ()
    patch: tuple[Operation, ...] = ()


_decoder = msgspec.json.Decoder(_Review)


def read(body: bytes) -> Request:
    """The request in an AdmissionReview. Raises `ReviewError`."""
    try:
        return _decoder.decode(body).request
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ReviewError(f"found no AdmissionReview of {API_VERSION}: {error}") from error


def write(request: Request, answer: Answer) -> bytes:
    """The AdmissionReview that answers a request."""
    response: dict[str, Any] = {"uid": request.uid, "allowed": answer.result is not Result.DENIED}
    if answer.message:
        response["status"] = {"code": 403, "message": answer.message}
    if answer.warnings:
        response["warnings"] = [text[:_MAX_WARNING] for text in answer.warnings]
    if answer.patch:
        patch = base64.b64encode(msgspec.json.encode(answer.patch)).decode()
        response |= {"patchType": "JSONPatch", "patch": patch}
    return msgspec.json.encode({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response})


def mutate_pod(request: Request, plan: Plan | None, settings: Settings) -> Answer:
    """Make a captured pod of one that a policy selects."""
    pod = request.object
    if pod is None or request.operation is not Operand.CREATE or request.sub_resource:
        return Answer(Result.ALLOWED)
    if plan is None:
        return Answer(Result.NOT_SELECTED)
    match inject(pod, request.namespace, plan, settings):
        case Injected(pod=injected, warnings=warnings):
            return Answer(Result.INJECTED, warnings=warnings, patch=tuple(diff(pod, injected)))
        case LeftAlone(warnings=warnings):
            return Answer(Result.LEFT_ALONE, warnings=warnings)
        case Refused(message=message):
            return Answer(Result.DENIED, message)


def validate_pod(request: Request, identity: Identity) -> Answer:
    """Refuse what would let a user of a captured pod steer its proxy."""
    if request.operation is not Operand.UPDATE or request.object is None or request.old_object is None:
        return Answer(Result.ALLOWED)
    found = objections(request.old_object, request.object, identity)
    return Answer(Result.DENIED, "; ".join(found)) if found else Answer(Result.ALLOWED)


def validate_policy(request: Request, known: Collection[PolicyKey]) -> Answer:
    """Refuse a policy that cannot be read; warn of a reference to a trust policy that is not there (yet).

    What was stored before this version knew better can still be changed in its metadata, and so be deleted.
    """
    policy, old = request.object, request.old_object
    if policy is None or (old is not None and old.get("spec") == policy.get("spec")):
        return Answer(Result.ALLOWED)
    try:
        loaded = read_object(policy)
    except PolicyError as error:
        return _denied(error.problems)
    if found := checks.problems(loaded):
        return _denied(found)
    document = loaded.document
    if not isinstance(document, InterceptionPolicy) or document.spec.trust_policy_ref is None:
        return Answer(Result.ALLOWED)
    ref = document.spec.trust_policy_ref
    namespace = None if ref.kind in CLUSTER_KINDS else request.namespace
    if PolicyKey(ref.kind, namespace, ref.name) in known:
        return Answer(Result.ALLOWED)
    where = f" in namespace {namespace}" if namespace else ""
    text = f"spec.trustPolicyRef: there is no {ref.kind} {ref.name!r}{where}; until there is, it has no effect"
    return Answer(Result.ALLOWED, warnings=(text,))


def _denied(problems: Iterable[Problem]) -> Answer:
    return Answer(Result.DENIED, "; ".join(problem.said for problem in problems))
