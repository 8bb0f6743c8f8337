"""What a ruleset is built from, with the questions that its chains ask."""

import msgspec

from weir_sidecar.contract.config import CaptureMode, FailureMode, Setup, SidecarConfig, Startup
from weir_sidecar.netfilter.features import Features
from weir_sidecar.netfilter.marks import Marks


class Plan(msgspec.Struct, frozen=True):
    """What the chains are built from."""

    config: SidecarConfig
    features: Features
    marks: Marks

    @property
    def tproxy(self) -> bool:
        """TPROXY or Redirect."""
        return self.config.capture.mode is CaptureMode.TPROXY

    @property
    def open(self) -> bool:
        """Fail open or closed."""
        return self.config.failure_mode is FailureMode.OPEN

    @property
    def waits(self) -> bool:
        """Closed, but only from the proxy's first heartbeat on. Fail open needs no such rule: it starts without a proxy."""
        return not self.open and self.config.startup is Startup.OPEN

    @property
    def handed_over(self) -> bool:
        """The proxy has no capability, and gets its sockets from the node's agent."""
        return self.config.setup is Setup.CNI

    @property
    def proxy(self) -> str:
        """Match: the socket that sends is the proxy's."""
        return f"meta skuid {self.config.identity.uid}"
