# ruff: noqa: INP001, T201 - a program of its own, which prints what it found
"""`helm test`: both Services answer by TLS with the CA of Weir's own, and the webhook answers as the API server asks.

What it does not show: that the API server itself gets through to the webhook, and that a pod can be captured.
"""

import http.client
import json
import ssl
import sys

REVIEW = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {
        "uid": "helm-test",
        "operation": "CREATE",
        "namespace": "default",
        "dryRun": True,
        "object": {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "helm-test", "namespace": "default", "labels": {"weir.dev/helm-test": "true"}},
            "spec": {"containers": [{"name": "none", "image": "none"}]},
        },
    },
}


def ask(host: str, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    """One request over TLS, verified with the CA and the Service's name."""
    context = ssl.create_default_context(cafile="/etc/weir/ca.crt")
    connection = http.client.HTTPSConnection(host, 443, timeout=10, context=context)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def main(namespace: str) -> None:
    """Ask both Services; the first failure ends the test with its reason."""
    stream = f"weir-stream.{namespace}.svc"
    status, _ = ask(stream, "POST", "/v1/namespaces/default/pods/helm-test/stream")
    if status != http.client.UNAUTHORIZED:
        sys.exit(f"{stream}: found {status} for a stream without a token; 401 is right")
    print(f"{stream}: answers, and refuses a stream without a token")
    webhook = f"weir-webhook.{namespace}.svc"
    status, body = ask(webhook, "POST", "/mutate/pods", json.dumps(REVIEW))
    if status != http.client.OK:
        sys.exit(f"{webhook}: found {status} for an AdmissionReview; 200 is right: {body[:500]!r}")
    response = json.loads(body)["response"]
    if response["uid"] != REVIEW["request"]["uid"] or not response["allowed"]:
        sys.exit(f"{webhook}: a plain pod is to be admitted, and the answer is {response}")
    print(f"{webhook}: admits a pod")


main(sys.argv[1])
