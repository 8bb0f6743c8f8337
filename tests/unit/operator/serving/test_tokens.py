"""Whose a token is, from what the API server says of it."""

import asyncio
import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_operator.serving.metrics import Metrics
from weir_operator.serving.tokens import Caller, Refusal, TokenReviewer, caller_of, claims
from weir_sidecar.contract.stream import AUDIENCE

NOW = 1_800_000_000.0


def jwt(**told):
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode()
        for part in (b"{}", json.dumps(told).encode(), b"signature")
    )


def status(**more):
    extra = {"authentication.kubernetes.io/pod-name": ["web-1"], "authentication.kubernetes.io/pod-uid": ["u-1"]}
    user = {"username": "system:serviceaccount:shop:default", "extra": extra}
    return {"authenticated": True, "audiences": [AUDIENCE], "user": user, **more}


VALID = claims(jwt(exp=NOW + 3600, aud=[AUDIENCE]))


class TestCallers:
    def test_a_pods_token_is_that_pods(self):
        assert caller_of(status(), VALID, NOW) == Caller("shop", "web-1", "u-1")

    @pytest.mark.parametrize(
        ("told", "about", "cause"),
        [
            ({}, VALID, Refusal.INVALID_TOKEN),
            ({"authenticated": False}, claims(jwt(exp=NOW - 1, aud=[AUDIENCE])), Refusal.EXPIRED_TOKEN),
            ({"authenticated": False}, claims(jwt(exp=NOW + 1, aud=["other"])), Refusal.OTHER_AUDIENCE),
            (status(audiences=[]), VALID, Refusal.OTHER_AUDIENCE),
            (status(audiences=None), VALID, Refusal.OTHER_AUDIENCE),
            (status(audiences=["other"]), VALID, Refusal.OTHER_AUDIENCE),
            (status(user={"username": "system:serviceaccount:shop:default"}), VALID, Refusal.NOT_A_PODS_TOKEN),
            (status(user={**status()["user"], "username": "admin"}), VALID, Refusal.NOT_A_PODS_TOKEN),
            (status(user=None), VALID, Refusal.NOT_A_PODS_TOKEN),
        ],
    )
    def test_anything_else_is_refused(self, told, about, cause):
        assert caller_of(told, about, NOW) is cause

    @given(st.text(max_size=60) | st.builds(lambda part: f"a.{part}.b", st.text(max_size=60)))
    def test_what_a_token_says_of_itself_is_read_from_anything(self, text):
        assert claims(text).aud == ()


class FakeClient:
    def __init__(self, *answers):
        self.asked = 0
        self._answers = list(answers)

    async def create(self, path, body):
        self.asked += 1
        assert body["spec"]["audiences"] == [AUDIENCE]
        return {"status": self._answers[min(self.asked, len(self._answers)) - 1]}


class TestReviewing:
    def ask(self, client, *at, token=None):
        """What comes of asking about a token at these times."""
        now = [0.0]
        reviewer = TokenReviewer(client, lambda: now[0], Metrics())

        async def each():
            found = []
            for time in at:
                now[0] = time
                found.append(await reviewer.review(token or jwt(exp=NOW + 3600)))
            return found

        return asyncio.run(each())

    def test_the_answer_is_kept_for_a_minute(self):
        client = FakeClient(status(), {"authenticated": False})
        assert self.ask(client, NOW, NOW + 59) == [Caller("shop", "web-1", "u-1")] * 2
        assert client.asked == 1
        assert self.ask(FakeClient(status(), {}), NOW, NOW + 60)[1] is Refusal.INVALID_TOKEN

    def test_it_is_not_kept_beyond_the_tokens_end(self):
        client = FakeClient(status(), {"authenticated": False})
        found = self.ask(client, NOW, NOW + 11, token=jwt(exp=NOW + 10, aud=[AUDIENCE]))
        assert found[1] is Refusal.EXPIRED_TOKEN

    def test_a_refusal_is_kept_for_a_short_while(self):
        client = FakeClient({"authenticated": False}, status())
        assert self.ask(client, NOW, NOW + 9) == [Refusal.INVALID_TOKEN] * 2
        assert self.ask(FakeClient({}, status()), NOW, NOW + 10)[1] == Caller("shop", "web-1", "u-1")

    def test_the_token_itself_is_not_kept(self):
        reviewer = TokenReviewer(FakeClient(status()), lambda: NOW, Metrics())
        token = jwt(exp=NOW + 3600)
        asyncio.run(reviewer.review(token))
        assert token not in repr(reviewer._kept)
