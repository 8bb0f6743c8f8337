"""`weir run`: what the command sees, how it ends, and that nothing stays behind. The sidecar is a stub."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns.machine import BEYOND, ORIGIN, ORIGIN6, Machine, eventually

pytestmark = pytest.mark.netns

ASK = "import socket,sys;s=socket.create_connection((sys.argv[1],80),5);print(s.makefile().read().strip())"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine() as made:
        yield made


def ask(address: str) -> list[str]:
    return [sys.executable, "-c", ASK, address]


def test_the_command_reaches_origins_through_the_sidecar(machine: Machine) -> None:
    record = machine.directory / "reach.jsonl"
    script = " && ".join(" ".join([sys.executable, "-c", f"'{ASK}'", address]) for address in (ORIGIN, ORIGIN6, BEYOND))
    done = machine.run("--record", str(record), "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    seen = done.stdout.splitlines()
    assert seen[0].startswith("you are 10.213.")
    assert seen[1].startswith("you are fd")
    assert seen[2] == "you are 198.51.100.1", "what leaves the machine has the machine's address"
    recorded = [json.loads(line)["address"] for line in record.read_text().splitlines()]
    assert recorded == [ORIGIN, ORIGIN6, BEYOND]
    assert "3 flows: 3 intercepted" in done.stderr


@pytest.mark.parametrize("nameserver", ["127.0.0.1", "127.0.0.53"])
def test_a_resolver_on_the_hosts_loopback_answers_the_pod(nameserver: str) -> None:
    with Machine(nameserver) as made:
        before = made.traces()
        done = made.run("--quiet", "--", "getent", "ahostsv4", "some.name.example")
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[0] == ORIGIN
        assert made.traces() == before


def test_a_resolver_with_an_address_answers_the_pod(machine: Machine) -> None:
    done = machine.run("--quiet", "--", "getent", "ahostsv4", "some.name.example")
    assert done.stdout.split()[:1] == [ORIGIN], done.stderr


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_the_exit_status_is_the_commands_and_nothing_is_left(machine: Machine, script: str, status: int) -> None:
    before = machine.traces()
    assert machine.run("--quiet", "--", "sh", "-c", script).returncode == status
    assert machine.traces() == before


def test_a_command_that_cannot_be_run_is_told_as_by_env(machine: Machine) -> None:
    missing = machine.run("--quiet", "--", "/no/such/program")
    assert (missing.returncode, missing.stderr) == (
        127,
        "weir: cannot run '/no/such/program': No such file or directory\n",
    )
    assert machine.run("--quiet", "--", "/etc/passwd").returncode == 126


def test_the_command_sees_the_trust_and_no_secret(machine: Machine) -> None:
    state = machine.directory / "state"
    script = (
        "cat /etc/ssl/certs/ca-certificates.crt $SSL_CERT_FILE $NODE_EXTRA_CA_CERTS | grep -c BEGIN;"
        f"find /run/weir; ls -A {state}/sidecar; cd {state} && cat sidecar/memory; cat /etc/resolv.conf"
    )
    environment = {"PATH": os.environ["PATH"]}
    done = machine.run("--quiet", "--name", "see", "--state", str(state), "--", "sh", "-c", script, env=environment)
    lines = done.stdout.splitlines()
    roots = Path("/etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN")
    assert int(lines[0]) == 2 * (roots + 1) + 1
    files = ("ca-certificates.crt", "ca.crt", "truststore.jks", "env", "resolv.conf")
    expected = {"/run/weir", "/run/weir/see.trust", *(f"/run/weir/see.trust/{name}" for name in files)}
    assert {line for line in lines if line.startswith("/run/weir")} == expected
    assert "No such file" in done.stderr
    assert (state / "sidecar/memory").exists()
    assert not (state / "proxy.pid").exists()


def test_the_record_can_be_read_and_not_changed_by_the_command(machine: Machine) -> None:
    record = machine.directory / "kept.jsonl"
    done = machine.run("--quiet", "--record", str(record), "--", "sh", "-c", f"cat {record} && echo x >> {record}")
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


def test_the_command_has_no_capability_over_the_pod(machine: Machine) -> None:
    script = "grep -E 'Cap(Eff|Bnd)' /proc/self/status; nft flush ruleset; umount /run/weir"
    done = machine.run("--quiet", "--", "sh", "-c", script)
    assert {line.split()[1] for line in done.stdout.splitlines()} == {"00000000a80425fb"}
    assert done.stderr.count("ermitted") + done.stderr.count("must be superuser") == 2, done.stderr


def test_sudo_means_the_person_who_called_it(machine: Machine) -> None:
    environment = dict(os.environ) | {"SUDO_UID": "65534", "HOME": "/root"}
    done = machine.run("--quiet", "--", "sh", "-c", "id -u; id -G; echo $HOME $USER", env=environment)
    assert done.stdout == "65534\n65534\n/nonexistent nobody\n"


def test_a_namespace_of_somebody_elses_is_left_alone(machine: Machine) -> None:
    machine.call("ip", "netns", "add", "weir-other")
    before = machine.traces()
    done = machine.run("--name", "other", "--", "true")
    after = machine.traces()
    machine.call("ip", "netns", "delete", "weir-other")
    assert (done.returncode, "weir-other" in done.stderr) == (125, True)
    assert after == before


def test_an_unknown_user_is_refused(machine: Machine) -> None:
    environment = dict(os.environ) | {"SUDO_UID": "15801"}
    done = machine.run("--", "true", env=environment)
    assert (done.returncode, "no such user" in done.stderr) == (125, True)
    assert machine.run("--user", "no-such-user", "--", "true").returncode == 125


def test_another_process_can_join_the_pod_by_its_name(machine: Machine) -> None:
    record = machine.directory / "join.jsonl"
    run = machine.start("--quiet", "--name", "join", "--record", str(record), "--", "sh", "-c", "echo up; sleep 60")
    try:
        joined = machine.call("ip", "netns", "exec", "weir-join", *ask(ORIGIN))
        resolv = machine.call("ip", "netns", "exec", "weir-join", "cat", "/etc/resolv.conf").stdout
        taken = machine.run("--name", "join", "--", "true")
    finally:
        finish(run, signal.SIGTERM)
    assert joined.stdout.startswith("you are 10.213.")
    assert resolv.startswith("# Made by weir run")
    assert json.loads(record.read_text())["address"] == ORIGIN
    assert taken.returncode == 125
    assert "a pod named join is running" in taken.stderr


def test_several_pods_at_once_do_not_collide(machine: Machine) -> None:
    before = machine.traces()
    runs = [machine.start("--quiet", "--", "sh", "-c", "echo up; sleep 60") for _ in range(3)]
    assert machine.call("ip", "netns", "list").stdout.count("weir-") == 3
    for run in runs:
        assert finish(run, signal.SIGINT) == 130
    assert machine.traces() == before


@pytest.mark.parametrize("how", ["run", "doctor"])
def test_what_a_killed_run_left_is_removed(machine: Machine, how: str) -> None:
    before = machine.traces()
    state = machine.directory / "killed"
    run = machine.start("--quiet", "--state", str(state), "--", "sh", "-c", "sleep 1000 & echo $!; wait")
    proxy = int((state / "proxy.pid").read_text())
    run.kill()
    finish(run, None)
    eventually(lambda: not alive(proxy))
    assert machine.traces() != before
    if how == "run":
        assert machine.run("--quiet", "--", "true").returncode == 0
    else:
        assert machine.call(sys.executable, "-m", "weir_cli.main", "doctor").returncode == 0
        assert machine.call(str(Path(sys.executable).with_name("weir")), "doctor", "--clean").returncode == 0
    assert machine.traces() == before


def test_processes_left_in_the_pod_end_with_it(machine: Machine) -> None:
    done = machine.run("--quiet", "--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!")
    assert not alive(int(done.stdout))


def test_a_dead_proxy_is_started_again(machine: Machine) -> None:
    state = machine.directory / "restart"
    run = machine.start("--quiet", "--state", str(state), "--", "sh", "-c", "echo up; sleep 60")
    try:
        first = (state / "proxy.pid").read_text()
        os.kill(int(first), signal.SIGKILL)
        eventually(lambda: (state / "proxy.pid").read_text() != first)
        assert alive(int((state / "proxy.pid").read_text()))
    finally:
        finish(run, signal.SIGTERM)


def test_without_restart_it_stays_dead_and_traffic_goes_direct(machine: Machine) -> None:
    state = machine.directory / "dead"
    options = ("--quiet", "--no-restart", "--state", str(state), "--name", "dead")
    run = machine.start(*options, "--", "sh", "-c", "echo up; sleep 60")
    try:
        proxy = int((state / "proxy.pid").read_text())
        os.kill(proxy, signal.SIGKILL)
        eventually(lambda: not alive(proxy))
        joined = machine.call("ip", "netns", "exec", "weir-dead", *ask(ORIGIN))
        assert joined.stdout.startswith("you are 10.213.")
    finally:
        finish(run, signal.SIGTERM)


def test_a_sidecar_that_does_not_start_is_a_failed_set_up(machine: Machine) -> None:
    before = machine.traces()
    state = machine.directory / "file"
    state.write_text("not a directory")
    done = machine.run("--state", str(state), "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert str(state) in done.stderr
    assert machine.traces() == before


def test_hangup_reads_the_policies_again_and_a_bad_one_changes_nothing(machine: Machine) -> None:
    policy = machine.directory / "policy.yaml"
    policy.write_text(policy_text("Passthrough"))
    run = machine.start("--quiet", "--name", "reload", "-f", str(policy), "--", "sh", "-c", "echo up; sleep 60")
    told = "/run/weir/reload/reloaded"
    try:
        policy.write_text(policy_text("Deny"))
        run_pid(run, signal.SIGHUP)
        config = json.loads(eventually(lambda: machine.call("cat", told).stdout))
        assert (config["defaultAction"], config["generation"]) == ("Deny", 1)
        policy.write_text("kind: Nonsense\n")
        run_pid(run, signal.SIGHUP)
        assert run.stderr
        assert "policy.yaml" in run.stderr.readline()
        assert json.loads(machine.call("cat", "/run/weir/reload/config.json").stdout) == config
    finally:
        finish(run, signal.SIGTERM)


def test_ctrl_c_reaches_the_command_and_not_the_proxy(machine: Machine) -> None:
    state = machine.directory / "tty"
    script = f"trap 'cat {state}/proxy.pid; exit 7' INT; echo up; while :; do sleep 0.1; done"
    pid, terminal = pty.fork()
    if pid == 0:
        argv = machine.weir("--quiet", "--state", str(state), "--", "sh", "-c", script)
        os.execvp(argv[0], argv)
    try:
        read_until(terminal, b"up")
        proxy = int((state / "proxy.pid").read_text())
        os.write(terminal, b"\x03")
        assert f"{proxy}".encode() in read_until(terminal, str(proxy).encode())
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    finally:
        os.close(terminal)


def policy_text(action: str) -> str:
    head = "apiVersion: weir.dev/v1alpha1\nkind: InterceptionPolicy\nmetadata: {name: test}\n"
    return f"{head}spec: {{podSelector: {{}}, defaultAction: {action}}}\n"


def read_until(descriptor: int, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        data += os.read(descriptor, 4096)
    return data


def run_pid(run: subprocess.Popen[str], number: int) -> None:
    """Signal `weir run`: nsenter without --fork has become it."""
    os.kill(run.pid, number)


def finish(run: subprocess.Popen[str], number: int | None) -> int:
    if number is not None:
        run_pid(run, number)
    status = run.wait(30)
    assert run.stdout
    assert run.stderr
    run.stdout.close()
    run.stderr.close()
    return status


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
