"""`make demo` shows what it says it shows, and leaves nothing behind. The script judges itself; this holds it to it."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from lab.lab import WEIR

pytestmark = pytest.mark.netns

DEMO = Path(__file__).parents[2] / "scripts" / "demo"


@pytest.fixture(scope="module")
def shown():
    """The demo's output, run once, without pauses."""
    if os.geteuid() != 0:
        pytest.skip("the demo makes network namespaces: run the tests as root")
    assert WEIR.exists(), "run `make setup` first"
    before = traces()
    done = subprocess.run([DEMO, "--quick"], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert traces() <= before
    return done.stdout


def traces():
    """What the demo might leave: its directory, and its web server."""
    servers = {str(path) for path in Path("/proc").glob("[0-9]*") if b"demo_origin" in command_line(path)}
    return servers | {str(path) for path in Path("/tmp").glob("weir-demo.*")}


def command_line(process):
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def act(shown, number):
    return re.search(rf"^{number}\. .*?(?=^{number + 1}\. |\Z)", shown, re.MULTILINE | re.DOTALL)[0]


def test_a_client_is_intercepted(shown):
    text = act(shown, 1)
    assert "hello from shop.example" in text
    assert re.search(r"issued by '.*Weir CA", text)
    assert re.search(r"tls +shop\.example:443 +intercept", text)


def test_a_client_that_does_not_trust_the_ca_passes_later(shown):
    text = act(shown, 2)
    assert "attempt 1: curl: (60)" in text
    assert "attempt 2: hello from bank.example" in text
    assert "attempt 3: hello from bank.example" in text
    assert re.search(r"bank\.example .* bypassed +client_distrusts_ca", text)


def test_a_host_is_denied_and_others_are_not(shown):
    text = act(shown, 3)
    assert "hello from tracker" not in text
    assert "hello from shop.example" in text
    assert re.search(r"dns +tracker\.example:53 +deny +rule", text)
    assert re.search(r"tls +tracker\.example:443 +deny +rule", text)


def test_nothing_fails_when_the_proxy_is_killed(shown):
    text = act(shown, 4)
    assert text.count("killed after") == 2
    requests, seen, direct, failed = map(int, re.search(
        r"(\d+) requests: (\d+) seen by Weir, (\d+) direct while it was gone, (\d+) failed", text).groups())  # fmt: skip
    assert (seen + direct, failed) == (requests, 0)
    assert seen > 0
    assert direct > 0


def test_it_says_what_to_do_without_root():
    if os.geteuid() != 0:
        pytest.skip("only root can run it as somebody else")
    # Given as text, and elsewhere: the checkout may be where only root can look.
    bash = ["bash", "-c", DEMO.read_text()]
    done = subprocess.run(bash, cwd="/", capture_output=True, text=True, user=65534, group=65534, check=False)
    assert done.returncode == 1
    assert "sudo make demo" in done.stderr
