"""Who is connected, and what each is told when."""

import asyncio

import msgspec
import pytest

from weir_operator.cluster.facts import NamespaceFacts, Workload
from weir_operator.cluster.policies import Policies
from weir_operator.injection.inject import Settings
from weir_operator.models import ExceptionDecision
from weir_operator.serving.certificate import ServingCertificate
from weir_operator.serving.exceptions import ExceptionFacts, Subject
from weir_operator.serving.knowledge import CapturedPod, Exceptions
from weir_operator.serving.sessions import Sessions
from weir_operator.serving.summary import Replica, Summary, config_map, summarise
from weir_operator.serving.tokens import Refusal
from weir_sidecar.contract.config import Action, IDRange, Stream
from weir_sidecar.contract.stream import Applied, Down, Health, Hello, NewConfig

NOW = 1_800_000_000.0
WEB = Workload("Deployment", "web")
CA = b"-----BEGIN CERTIFICATE-----\n"
decode = msgspec.json.Decoder(Down).decode


def policy(default="Deny", **spec):
    metadata = {"name": "web", "namespace": "shop", "generation": 1}
    kind = {"apiVersion": "weir.dev/v1alpha1", "kind": "InterceptionPolicy", "metadata": metadata}
    return {**kind, "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "defaultAction": default, **spec}}


def pod(name="web-1", *, workload=WEB, uid="u", finished=False, labels=None, exempt=()):
    labels = {"app": "web"} if labels is None else labels
    return CapturedPod("shop", name, uid, labels, workload, True, finished, False, False, False, exempt=exempt)


class FakeKnowledge:
    """What is known, said by the test."""

    def __init__(self, *policies):
        self.policies = Policies.of(policies)
        self.exceptions = Exceptions()
        self.certificate = ServingCertificate(b"", b"", CA)
        self.there = {}

    def plan_of(self, one):
        return self.policies.plan(NamespaceFacts(one.namespace, {}), one.labels) or self.policies.unselected()

    async def fetch_pod(self, namespace, name):
        return self.there.get((namespace, name))


class Stage:
    """Sessions, and what happens to them."""

    def __init__(self, *policies):
        self.knowledge = FakeKnowledge(*(policies or (policy(),)))
        self.settings = Settings("weir:1", stream=Stream("weir-stream:443", "CA"))
        self.changes = 0
        self.sessions = Sessions(self.knowledge, lambda: self.settings, lambda: NOW, self._changed)

    def _changed(self):
        self.changes += 1

    def open(self, one=None, *, revision="", kernel=None):
        return self.sessions.open(one or pod(), Hello("0", revision, revision if kernel is None else kernel))

    @property
    def revision(self):
        return self.knowledge.plan_of(pod()).config.revision

    async def change(self, *policies):
        self.knowledge.policies = Policies.of(policies)
        self.sessions.plans_changed()
        await asyncio.sleep(0.01)


async def letters(session):
    """What it is told now."""
    config, exceptions = await session.letters(0.2)
    return config and decode(config), exceptions and decode(exceptions)


def staged(test):
    """Run a test's coroutine with a stage whose sessions are kept up to date."""

    def run(self):
        async def main():
            stage = Stage()
            running = asyncio.ensure_future(stage.sessions.run())
            try:
                await test(self, stage)
            finally:
                running.cancel()

        asyncio.run(main())

    return run


class TestConfigs:
    @staged
    async def test_who_comes_gets_the_config_of_its_pod(self, stage):
        config, exceptions = await letters(stage.open())
        assert isinstance(config, NewConfig)
        assert config.config.default_action is Action.DENY
        assert config.config.workload == "shop/Deployment/web"
        assert config.config.stream == stage.settings.stream
        assert config.config.ports.probe == 15804
        assert exceptions is not None

    @staged
    async def test_who_has_it_is_not_told(self, stage):
        config, _ = await letters(stage.open(revision=stage.revision))
        assert config is None

    @staged
    async def test_who_has_it_with_other_kernel_rules_is(self, stage):
        config, _ = await letters(stage.open(revision=stage.revision, kernel="older"))
        assert config is not None

    @staged
    async def test_while_the_ca_rotates_everybody_is(self, stage):
        stage.knowledge.certificate = ServingCertificate(b"", b"", CA * 2)
        config, _ = await letters(stage.open(revision=stage.revision))
        assert config is not None

    @staged
    async def test_a_change_is_told_once(self, stage):
        session = stage.open()
        await letters(session)
        await stage.change(policy("Passthrough"))
        config, exceptions = await letters(session)
        assert config.config.default_action is Action.PASSTHROUGH
        assert exceptions is None
        stage.sessions.plans_changed()
        assert await letters(session) == (None, None)

    @staged
    async def test_of_two_changes_who_reads_slowly_gets_the_last(self, stage):
        session = stage.open()
        await letters(session)
        await stage.change(policy("Passthrough"))
        await stage.change(policy("Intercept"))
        config, _ = await letters(session)
        assert config.config.default_action is Action.INTERCEPT
        assert await letters(session) == (None, None)

    @staged
    async def test_another_ca_is_told_though_the_revision_is_the_same(self, stage):
        session = stage.open()
        await letters(session)
        stage.settings = Settings("weir:1", stream=Stream("weir-stream:443", "CA and another"))
        stage.sessions.settings_changed()
        config, _ = await letters(session)
        assert config.config.stream.authorities_pem == "CA and another"

    @staged
    async def test_one_text_serves_all_pods_of_a_workload(self, stage):
        first, second = stage.open(pod("web-1")), stage.open(pod("web-2"))
        other = stage.open(pod("b-1", workload=Workload("Deployment", "b")))
        meshed = stage.open(pod("web-3", exempt=(IDRange(1337, 1337),)))
        lines = [(await session.letters(0.2))[0] for session in (first, second, other, meshed)]
        assert lines[0] is lines[1]
        assert len(set(lines)) == 3
        assert decode(lines[3]).config.capture.exclude.uids == (IDRange(1337, 1337),)

    @staged
    async def test_other_labels_are_another_config(self, stage):
        session = stage.open()
        await letters(session)
        stage.sessions.pod_changed(pod(), pod(labels={}))
        config, _ = await letters(session)
        assert config.config.default_action is Action.PASSTHROUGH


class TestExceptions:
    def exception(self, workload=WEB, decision=ExceptionDecision.PASSTHROUGH, name="e"):
        return ExceptionFacts("shop", name, Subject(workload, "a.example"), decision, None)

    @staged
    async def test_a_word_is_told_to_whom_it_is_about(self, stage):
        about, other = stage.open(), stage.open(pod("b-1", workload=Workload("Deployment", "b")))
        for session in (about, other):
            await letters(session)
        one = self.exception()
        stage.knowledge.exceptions.take(None, one)
        stage.sessions.exception_changed(None, one)
        _, exceptions = await letters(about)
        assert [said.host for said in exceptions.said] == ["a.example"]
        assert await letters(other) == (None, None)

    @staged
    async def test_an_end_is_told_too(self, stage):
        one = self.exception()
        stage.knowledge.exceptions.take(None, one)
        session = stage.open()
        assert (await letters(session))[1].said
        stage.knowledge.exceptions.take(one, None)
        stage.sessions.exception_changed(one, None)
        assert not (await letters(session))[1].said


class TestEnds:
    @staged
    async def test_a_second_of_the_same_pod_ends_the_first(self, stage):
        first = stage.open()
        second = stage.open()
        assert first.ended is Refusal.REPLACED
        stage.sessions.close(first)
        assert stage.sessions.all() == [second]

    @pytest.mark.parametrize(
        ("old", "new"), [(pod(finished=True), None), (pod(), pod(uid="another"))], ids=["gone", "another of its name"]
    )
    def test_the_end_of_the_pod_is_its_end(self, old, new):
        async def main():
            stage = Stage()
            session = stage.open()
            session.pod = old
            stage.sessions.pod_changed(old, new)
            assert session.ended is Refusal.POD_GONE

        asyncio.run(main())

    @staged
    async def test_a_pod_that_only_lost_its_label_goes_on(self, stage):
        session = stage.open()
        stage.knowledge.there["shop", "web-1"] = pod()
        stage.sessions.pod_changed(pod(), None)
        await asyncio.sleep(0.01)
        assert session.ended is None

    @staged
    async def test_a_pod_that_is_gone_at_once_does_not(self, stage):
        session = stage.open()
        stage.sessions.pod_changed(pod(), None)
        await asyncio.sleep(0.01)
        assert session.ended is Refusal.POD_GONE

    @staged
    async def test_all_are_let_go_one_after_the_other(self, stage):
        opened = [stage.open(pod(f"web-{number}")) for number in range(10)]
        stage.sessions.drain(0.2)
        await asyncio.sleep(0.05)
        assert 0 < sum(session.ended is Refusal.STOPPING for session in opened) < 10
        await asyncio.sleep(0.3)
        assert all(session.ended is Refusal.STOPPING for session in opened)


class TestSummary:
    def counted(self, stage):
        return summarise(stage.sessions.all()).policies["InterceptionPolicy/shop/web"]

    @staged
    async def test_who_runs_what_it_should_is_current(self, stage):
        session = stage.open()
        assert self.counted(stage) == {"connected": 1, "current": 0}
        stage.sessions.applied(session, Applied(stage.revision))
        assert self.counted(stage) == {"connected": 1, "current": 1}
        await stage.change(policy("Intercept"))
        assert self.counted(stage) == {"connected": 1, "current": 0}

    @pytest.mark.parametrize("more", [{"problem": "no room"}, {"after_restart": ("capture.mode",)}])
    def test_who_did_not_or_not_wholly_take_it_is_not(self, more):
        async def main():
            stage = Stage()
            session = stage.open()
            stage.sessions.applied(session, Applied(stage.revision, **more))
            assert self.counted(stage) == {"connected": 1, "current": 0}
            waits = more.get("after_restart")
            named = {} if waits is None else {"InterceptionPolicy/shop/web": waits}
            assert summarise(stage.sessions.all()).waits == named
            stage.sessions.applied(session, Applied(stage.revision))
            assert summarise(stage.sessions.all()).waits == {}

        asyncio.run(main())

    @staged
    async def test_who_finds_no_rules_is_listed_and_not_current_until_it_finds_them(self, stage):
        session = stage.open()
        stage.sessions.applied(session, Applied(stage.revision))
        for captured in (False, True):
            before = stage.changes
            stage.sessions.health(session, Health(0, {}, 0, 0, captured=captured))
            stage.sessions.health(session, Health(0, {}, 0, 0, captured=captured))
            assert stage.changes == before + 1
            assert summarise(stage.sessions.all()).uncaptured == (() if captured else (session.pod.uid,))
            assert self.counted(stage)["current"] == captured

    @staged
    async def test_who_is_gone_is_not_counted(self, stage):
        stage.sessions.close(stage.open())
        assert summarise(stage.sessions.all()) == Summary()
        assert stage.changes >= 2

    def test_the_config_map_is_its_pods(self):
        made = config_map(Replica("weir-system", "weir-serving-x", "u"), Summary())
        assert made["metadata"]["name"] == "weir-stream-weir-serving-x"
        assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
        assert made["metadata"]["labels"] == {"weir.dev/stream-summary": "true"}
