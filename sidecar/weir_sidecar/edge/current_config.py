"""The config in force and how another one comes in its place: from the file on SIGHUP, or from the control plane.

Whatever is wrong with a new one, the last good one stays.
"""

from collections.abc import Callable

from OpenSSL import crypto

from weir_sidecar.contract.config import SidecarConfig
from weir_sidecar.contract.stream import Applied
from weir_sidecar.core.held import hold
from weir_sidecar.edge import config_file


class CurrentConfig:
    """`started` is the config whose rules the kernel has; None where whoever changes the file changes the rules too.

    `adopt` puts a config in force and raises what is wrong with it: ValueError, OSError or crypto.Error.
    """

    def __init__(
        self,
        config: SidecarConfig,
        started: SidecarConfig | None,
        run_dir: int,
        adopt: Callable[[SidecarConfig], None],
        say: Callable[[str], None],
    ) -> None:
        self.config = config
        self._started = started
        self._run_dir = run_dir
        self._adopt = adopt
        self._say = say

    @property
    def kernel_revision(self) -> str:
        """The revision of the config whose rules the kernel has."""
        return (self._started or self.config).revision

    def reload(self) -> None:
        """Take the file's config."""
        try:
            config = config_file.read(self._run_dir)
        except (OSError, ValueError) as problem:
            self._say(f"the new config is not used, the last good one stays: {problem}")
            return
        self._put(config)

    def take(self, config: SidecarConfig) -> Applied:
        """Take a config that the control plane brings, and keep it for the next start of this process."""
        applied = self._put(config)
        if applied.problem is None:
            try:
                config_file.replace(self._run_dir, self.config)
            except OSError as problem:
                self._say(f"config {config.revision} is in force, and will not survive a restart: {problem}")
        return applied

    def _put(self, config: SidecarConfig) -> Applied:
        after_restart: tuple[str, ...] = ()
        if self._started is not None:
            config, after_restart = hold(config, self._started)
        if config == self.config:
            return Applied(config.revision, after_restart=after_restart)
        try:
            self._adopt(config)
        except (OSError, ValueError, crypto.Error) as problem:
            self._say(f"the new config is not used, the last good one stays: {problem}")
            return Applied(config.revision, problem=str(problem))
        self.config = config
        later = f"; when the pod starts anew also {', '.join(after_restart)}" if after_restart else ""
        self._say(f"config {config.revision or config.generation} is in force{later}")
        return Applied(config.revision, after_restart=after_restart)
