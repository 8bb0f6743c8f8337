"""Admission over HTTP: the webhooks that the API server calls. What they decide is in `review`."""

import logging
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

from aiohttp import web

from weir_operator.injection.inject import Settings
from weir_operator.serving import review
from weir_operator.serving.knowledge import Knowledge
from weir_operator.serving.log import facts
from weir_operator.serving.metrics import Metrics
from weir_sidecar.contract.config import Identity

_log = logging.getLogger(__name__)


class Webhook(StrEnum):
    """The webhooks; their paths are /mutate/pods and the like."""

    MUTATE_PODS = "mutate_pods"
    VALIDATE_PODS = "validate_pods"
    VALIDATE_POLICIES = "validate_policies"

    @property
    def path(self) -> str:
        """Where it is called."""
        return "/" + self.value.replace("_", "/")


type Decide = Callable[[review.Request], Awaitable[review.Answer]]


class AdmissionServer:
    """Answers admission requests. What goes wrong here is an HTTP error, so that the webhook's failurePolicy decides."""

    def __init__(self, knowledge: Knowledge, settings: Callable[[], Settings], metrics: Metrics) -> None:
        self._knowledge = knowledge
        self._settings = settings
        self._metrics = metrics
        self._stopping = False

    def routes(self) -> list[web.RouteDef]:
        """What to serve."""
        decisions = {
            Webhook.MUTATE_PODS: self._mutate_pod,
            Webhook.VALIDATE_PODS: self._validate_pod,
            Webhook.VALIDATE_POLICIES: self._validate_policy,
        }
        return [web.post(webhook.path, self._handler(webhook, decide)) for webhook, decide in decisions.items()]

    def drain(self) -> None:
        """Ask those who call to connect anew, so that they come to another replica."""
        self._stopping = True

    def _handler(self, webhook: Webhook, decide: Decide) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            started = time.perf_counter()
            response, result = await self._answer(request, decide)
            self._metrics.admissions.add(webhook.value, result)
            self._metrics.admission_seconds.observe(time.perf_counter() - started)
            if self._stopping:
                response.force_close()
            return response

        return handle

    async def _answer(self, request: web.Request, decide: Decide) -> tuple[web.Response, str]:
        if not self._knowledge.complete:
            return web.Response(status=503, text="not ready: what policies there are is not known yet"), "not_ready"
        try:
            asked = review.read(await request.read())
        except review.ReviewError as error:
            return web.Response(status=400, text=str(error)), "unreadable"
        try:
            answer = await decide(asked)
        except Exception:  # noqa: BLE001 - whatever it is, the webhook's failurePolicy is to decide
            about = facts(uid=asked.uid, path=request.path, namespace=asked.namespace, name=asked.name)
            _log.exception("an admission request could not be answered", extra=about)
            return web.Response(status=500, text=f"internal error; the log has it under uid {asked.uid}"), "error"
        return web.Response(body=review.write(asked, answer), content_type="application/json"), answer.result.value

    async def _mutate_pod(self, asked: review.Request) -> review.Answer:
        namespace = await self._knowledge.fetch_namespace(asked.namespace)
        labels = ((asked.object or {}).get("metadata") or {}).get("labels") or {}
        return review.mutate_pod(asked, self._knowledge.plan(namespace, labels), self._settings())

    async def _validate_pod(self, asked: review.Request) -> review.Answer:
        return review.validate_pod(asked, Identity())

    async def _validate_policy(self, asked: review.Request) -> review.Answer:
        assert self._knowledge.policies is not None
        return review.validate_policy(asked, self._knowledge.policies.keys())
