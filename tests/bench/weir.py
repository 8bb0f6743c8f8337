"""Starts Weir's own sidecar in the client's namespace: the ruleset and the process of a pod, nothing of the bench's."""

import os
import shutil
import subprocess
import sys
import time

from weir_sidecar import __version__
from weir_sidecar.contract import config as contract

from .peers import Mode
from .site import CLIENT, HOST, Site, SiteError, proxy_core, run, within

VERSION = f"Weir {__version__}"
_APPLY = (
    "import sys; from weir_sidecar.contract import config; from weir_sidecar.netsetup import capture;"
    "capture.apply(config.decode(sys.stdin.read()))"
)


def config(mode: Mode, roots: str) -> contract.SidecarConfig:
    """What a policy compiles to that trusts the origin's CA, and in passthrough mode never intercepts its host."""
    upstream = contract.Upstream(roots_pem=(roots,), system_roots=False)
    never = (HOST,) if mode is Mode.PASSTHROUGH else ()
    return contract.SidecarConfig(trust=contract.Trust(upstream=upstream, never_intercept=never))


def start(site: Site, mode: Mode, *, module: str = "weir_sidecar") -> tuple[subprocess.Popen[bytes], float]:
    """The running sidecar, and the seconds from the start of its process until it serves."""
    chosen = config(mode, (site.dir / "origin-ca.pem").read_text(encoding="ascii"))
    directory = site.dir / "weir"
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "state").mkdir(parents=True)
    (directory / "config.json").write_bytes(contract.encode(chosen))
    for path in (directory, directory / "state", directory / "config.json"):
        os.chown(path, chosen.identity.uid, chosen.identity.gid)
        path.chmod(0o700 if path.is_dir() else 0o600)
    run("ip", "netns", "exec", CLIENT, sys.executable, "-c", _APPLY, stdin=contract.encode(chosen).decode())
    told, tell = os.pipe()
    try:
        argv = [sys.executable, "-m", module, "--run-dir", str(directory), "--state-dir", f"{directory}/state"]
        argv += ["--record", f"{directory}/records.jsonl", "--ready-fd", str(tell)]
        begun = time.monotonic()
        process = site.spawn(within(CLIENT, proxy_core(), argv), pass_fds=(tell,))
        os.close(tell)
        # Nothing to read means that the sidecar ended and its end of the pipe was closed.
        if not os.read(told, 16):
            raise SiteError(f"the sidecar ended before it was ready: {site.said()}")
        return process, time.monotonic() - begun
    finally:
        os.close(told)
