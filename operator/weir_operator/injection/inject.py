"""The pod with Weir in it. Pure, and idempotent: what an earlier call put in is taken out first."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from weir_operator.cluster.policies import Plan
from weir_sidecar.contract.config import Port, Stream


class Settings(msgspec.Struct, frozen=True):
    """What the installation says about every captured pod. Resources as a container has them: limits, requests."""

    image: str
    pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    init_resources: Mapping[str, Any] = {}
    sidecar_resources: Mapping[str, Any] = {}
    stream: Stream | None = None
    probe_port: Port = 15804


class Injected(msgspec.Struct, frozen=True):
    """The pod to run instead; it shares with the given one what is unchanged. `warnings` are for who created it."""

    pod: dict[str, Any]
    warnings: tuple[str, ...] = ()


class LeftAloneReason(Enum):
    """Why a pod that policies select is not captured, without anything being wrong."""

    HOST_NETWORK = "host network"
    WINDOWS = "Windows"
    OPTED_OUT = "opted out"
    STATIC = "static pod"


class LeftAlone(msgspec.Struct, frozen=True):
    """The pod stays as it is."""

    reason: LeftAloneReason
    warnings: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    """The pod cannot be captured and must not run uncaptured; the text says what is wrong and what to do."""

    message: str


def inject(pod: Mapping[str, Any], namespace: str, plan: Plan, settings: Settings) -> Injected | LeftAlone | Refused:
    """Put Weir into a v1 Pod of `namespace`, as `plan` asks. Never changes `pod`."""
    raise NotImplementedError
