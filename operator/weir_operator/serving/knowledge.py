"""What a serving process knows of the cluster: policies, namespaces, captured pods, exceptions, its certificate.

All of it follows the API server by watches. While that is away the last that was known stays, and is served.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from weir_operator.cluster.facts import CAPTURED_LABEL, NamespaceFacts, PodFacts, Workload, namespace_facts, pod_facts
from weir_operator.cluster.policies import Plan, Policies
from weir_operator.injection import meshes
from weir_operator.kube.client import Client
from weir_operator.kube.errors import ApiError, Reason
from weir_operator.kube.reflector import Change, Key, Reflector
from weir_operator.models import API_VERSION, GROUP, KINDS, PLURALS
from weir_operator.serving.certificate import CertificateError, ServingCertificate, read_secret
from weir_operator.serving.exceptions import ExceptionFacts, Subject, exception_facts
from weir_operator.serving.log import facts
from weir_sidecar.contract.config import IDRange

DEBOUNCE_SECONDS = 0.05
"""Policies are compiled anew this long after the first of several changes."""
_NAME_LABEL = "kubernetes.io/metadata.name"

_log = logging.getLogger(__name__)


class CapturedPod(PodFacts, frozen=True):
    """A pod, and the users in it whose packets are a mesh's: its config exempts them."""

    exempt: tuple[IDRange, ...] = ()


def captured_pod(pod: Mapping[str, Any]) -> CapturedPod:
    """Read a v1 Pod."""
    return CapturedPod(**msgspec.structs.asdict(pod_facts(pod)), exempt=meshes.uids(pod))


class Exceptions:
    """TrustExceptions by namespace, and by what they are about."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, dict[str, ExceptionFacts]] = {}
        self._by_subject: dict[tuple[str, Subject], ExceptionFacts] = {}
        self._counts: Counter[tuple[str, Workload | None]] = Counter()

    def take(self, old: ExceptionFacts | None, new: ExceptionFacts | None) -> None:
        """Follow a change."""
        if old is not None:
            whose = old.namespace, old.subject.workload
            self._counts[whose] -= 1
            if not self._counts[whose]:
                del self._counts[whose]
            self._by_namespace[old.namespace].pop(old.name, None)
            if self._by_subject.get((old.namespace, old.subject)) is old:
                del self._by_subject[old.namespace, old.subject]
        if new is not None:
            self._by_namespace.setdefault(new.namespace, {})[new.name] = new
            self._counts[new.namespace, new.subject.workload] += 1
            self._by_subject[new.namespace, new.subject] = new

    def of(self, namespace: str) -> tuple[ExceptionFacts, ...]:
        """All of a namespace."""
        return tuple(self._by_namespace.get(namespace, {}).values())

    def count(self, namespace: str, workload: Workload | None) -> int:
        """How many are about a workload."""
        return self._counts[namespace, workload]

    def about(self, namespace: str, subject: Subject) -> ExceptionFacts | None:
        """The one about exactly this, whatever its name."""
        return self._by_subject.get((namespace, subject))


class Listener(Protocol):
    """Who wants to know of changes."""

    def plans_changed(self) -> None:
        """Any pod's plan may be another."""

    def exception_changed(self, old: ExceptionFacts | None, new: ExceptionFacts | None) -> None:
        """A TrustException as it was, and as it is."""

    def pod_changed(self, old: CapturedPod | None, new: CapturedPod | None) -> None:
        """A captured pod as it was, and as it is."""

    def certificate_changed(self, certificate: ServingCertificate) -> None:
        """There is another serving certificate. Raises `CertificateError` if it is of no use."""


class Knowledge:
    """Caches of the API server's objects, and the policies that they come to. `listener` is set before `runs`."""

    listener: Listener

    def __init__(self, client: Client, namespace: str, serving_secret: str) -> None:
        self._client = client
        self.policies: Policies | None = None
        self.certificate: ServingCertificate | None = None
        self.exceptions = Exceptions()
        self._rebuild: asyncio.TimerHandle | None = None
        self._kinds = {kind: self._reflector(f"{GROUP}/{PLURALS[kind]}", _decoder(kind)) for kind in KINDS}
        self._namespaces = self._reflector("/api/v1/namespaces", lambda raw: namespace_facts(_plain(raw)))
        self._pods = self._reflector(
            "/api/v1/pods", lambda raw: captured_pod(_plain(raw)), label_selector=f"{CAPTURED_LABEL}=true"
        )
        self._exceptions = self._reflector(f"{GROUP}/trustexceptions", lambda raw: exception_facts(_plain(raw)))
        self._secret = self._reflector(
            f"/api/v1/namespaces/{namespace}/secrets",
            lambda raw: read_secret(_plain(raw)),
            field_selector=f"metadata.name={serving_secret}",
        )
        self._subscribe()

    def _reflector[T](
        self, path: str, decode: Callable[[msgspec.Raw], T], *, label_selector: str = "", field_selector: str = ""
    ) -> Reflector[T]:
        def told(text: str) -> None:
            _log.warning("not all of a collection is known", extra=facts(path=path, problem=text))

        return Reflector(
            self._client,
            path,
            decode,
            label_selector=label_selector,
            field_selector=field_selector,
            on_problem=told,
        )

    def _subscribe(self) -> None:
        for reflector in self._kinds.values():
            reflector.subscribe(self._policy_changed)
        self._namespaces.subscribe(self._namespace_changed)
        self._pods.subscribe(self._pod_changed)
        self._exceptions.subscribe(self._exception_changed)
        self._secret.subscribe(self._secret_changed)

    def runs(self) -> Iterator[Coroutine[Any, Any, Any]]:
        """What has to run for as long as the process serves."""
        yield from (reflector.run() for reflector in self._kinds.values())
        yield from (self._namespaces.run(), self._pods.run(), self._exceptions.run(), self._secret.run())
        yield self._first_policies()

    @property
    def complete(self) -> bool:
        """Whether everything was listed once, and there is a certificate. It stays so."""
        reflectors = (self._namespaces, self._pods, self._exceptions)
        return self.policies is not None and self.certificate is not None and all(one.is_synced for one in reflectors)

    async def _first_policies(self) -> None:
        """Compile for the first time when all kinds are there: half of the policies are other policies."""
        for reflector in self._kinds.values():
            await reflector.synced()
        self._compile()

    def _policy_changed(self, _change: Change, _key: Key, _old: object, _new: object) -> None:
        self._compile_soon()

    def _namespace_changed(
        self, _change: Change, _key: Key, old: NamespaceFacts | None, new: NamespaceFacts | None
    ) -> None:
        if old is None or new is None or old.labels != new.labels:
            self._compile_soon()

    def _pod_changed(self, _change: Change, _key: Key, old: CapturedPod | None, new: CapturedPod | None) -> None:
        self.listener.pod_changed(old, new)

    def _compile_soon(self) -> None:
        if self._rebuild is None and self.policies is not None:
            self._rebuild = asyncio.get_running_loop().call_later(DEBOUNCE_SECONDS, self._compile)

    def _compile(self) -> None:
        self._rebuild = None
        objects = (obj for reflector in self._kinds.values() for obj in reflector.objects.values())
        self.policies = (self.policies or Policies.of(())).followed_by(objects)
        self.listener.plans_changed()

    def _exception_changed(
        self, _change: Change, _key: Key, old: ExceptionFacts | None, new: ExceptionFacts | None
    ) -> None:
        self.exceptions.take(old, new)
        self.listener.exception_changed(old, new)

    def _secret_changed(
        self, _change: Change, key: Key, _old: ServingCertificate | None, new: ServingCertificate | None
    ) -> None:
        if new is None:
            _log.error(
                "the Secret with the serving certificate is gone; the last one stays in use", extra=facts(name=key[1])
            )
        elif new != self.certificate:
            try:
                self.listener.certificate_changed(new)
            except CertificateError as error:
                _log.error(
                    "the serving certificate is of no use; the last one stays in use", extra=facts(problem=str(error))
                )
            else:
                self.certificate = new

    def pod(self, namespace: str, name: str) -> CapturedPod | None:
        """A captured pod that is known."""
        return self._pods.objects.get((namespace, name))

    async def fetch_pod(self, namespace: str, name: str) -> CapturedPod | None:
        """A pod as the API server has it now, captured or not; None: there is none. Raises `ApiError`."""
        return await self._fetch(f"/api/v1/namespaces/{namespace}/pods/{name}", captured_pod)

    async def fetch_namespace(self, name: str) -> NamespaceFacts:
        """A namespace: as it is known, else as the API server has it. Raises `ApiError`."""
        known = self._namespaces.objects.get((None, name))
        return known or await self._fetch(f"/api/v1/namespaces/{name}", namespace_facts) or self._namespace(name)

    async def _fetch[T](self, path: str, read: Callable[[Mapping[str, Any]], T]) -> T | None:
        try:
            return read(await self._client.get(path))
        except ApiError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise

    def _namespace(self, name: str) -> NamespaceFacts:
        """A namespace; of one whose watch is behind, at least the label that each has."""
        return self._namespaces.objects.get((None, name)) or NamespaceFacts(name, {_NAME_LABEL: name})

    def plan(self, namespace: NamespaceFacts, labels: Mapping[str, str]) -> Plan | None:
        """What a pod that is made now gets; None: no policy selects it."""
        assert self.policies is not None, "nothing is asked before /readyz says so"
        return self.policies.plan(namespace, labels)

    def plan_of(self, pod: CapturedPod) -> Plan:
        """What a captured pod gets."""
        assert self.policies is not None, "nothing is asked before /readyz says so"
        return self.policies.plan(self._namespace(pod.namespace), pod.labels) or self.policies.unselected()


def _plain(raw: msgspec.Raw) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(raw)
    return decoded


def _decoder(kind: str) -> Callable[[msgspec.Raw], dict[str, Any]]:
    """Objects of a list do not say what they are."""
    return lambda raw: {"apiVersion": API_VERSION, "kind": kind} | _plain(raw)
