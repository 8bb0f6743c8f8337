"""The webhooks' HTTP: what is no answer is an error, so that failurePolicy decides."""

import asyncio
import io
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from weir_operator.cluster.facts import NamespaceFacts
from weir_operator.cluster.policies import Policies
from weir_operator.injection.inject import Settings
from weir_operator.serving.admission import AdmissionServer, Webhook
from weir_operator.serving.metrics import Metrics
from weir_operator.serving.review import MAX_BODY


class FakeKnowledge:
    complete = True
    policies = Policies.of([])

    async def fetch_namespace(self, name):
        if name == "broken":
            raise RuntimeError("a bug")
        return NamespaceFacts(name, {})

    def plan(self, namespace, labels):
        return None


def review(**request):
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
    return json.dumps({**whole, "request": {"uid": "u", "operation": "CREATE", **request}}).encode()


def post(body, *, webhook=Webhook.MUTATE_PODS, complete=True, drained=False):
    """Status, headers and text of the answer; and the metrics."""
    knowledge, metrics = FakeKnowledge(), Metrics()
    knowledge.complete = complete

    async def main():
        server = AdmissionServer(knowledge, lambda: Settings("weir:1"), metrics)
        if drained:
            server.drain()
        app = web.Application(client_max_size=MAX_BODY)
        app.add_routes(server.routes())
        async with TestClient(TestServer(app)) as client:
            answer = await client.post(webhook.path, data=io.BytesIO(body))
            return answer.status, answer.headers, await answer.text()

    return (*asyncio.run(main()), metrics)


@pytest.mark.parametrize("webhook", Webhook)
def test_each_webhook_answers(webhook):
    status, _, text, metrics = post(review(), webhook=webhook)
    assert status == 200
    assert json.loads(text)["response"] == {"uid": "u", "allowed": True}
    assert sum(metrics.admissions.value(webhook.value, result) for result in ("allowed", "not_selected")) == 1


def test_an_internal_error_is_an_error_and_in_the_log(caplog):
    status, _, text, metrics = post(review(namespace="broken", object={}))
    assert status == 500
    assert "a bug" not in text
    assert caplog.records[0].facts["uid"] == "u"
    assert metrics.admissions.value("mutate_pods", "error") == 1


def test_what_is_no_review_is_refused():
    assert post(b"{}")[0] == 400


def test_too_much_is_refused():
    assert post(b"x" * (MAX_BODY + 1))[0] == 413


def test_before_anything_is_known_nothing_is_answered():
    assert post(review(), complete=False)[0] == 503


def test_callers_are_sent_elsewhere_when_it_ends():
    assert post(review())[1].get("Connection") != "close"
    assert post(review(), drained=True)[1]["Connection"] == "close"
