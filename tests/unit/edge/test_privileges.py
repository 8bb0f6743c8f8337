"""Dropping privileges, in forked children: it cannot be undone, which is what is tested."""

import ctypes
import json
import os
import socket
import traceback

import msgspec
import pytest

from weir_sidecar.edge import privileges
from weir_sidecar.edge.privileges import Capability, PrivilegeError, drop, leftovers, read_status

UID, GID = 15801, 15802
KEPT = 1 << Capability.NET_RAW | 1 << Capability.NET_BIND_SERVICE
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have something to drop")


def in_child(work):
    """Run `work` in a forked child and return its JSON result."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result = {"ok": work()}
        except BaseException:
            result = {"failed": traceback.format_exc()}
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result = json.load(pipe)
    os.waitpid(child, 0)
    assert "failed" not in result, result["failed"]
    return result["ok"]


def refused(call, *args):
    try:
        call(*args)
    except OSError:
        return True
    return False


def limit_to(mask):
    """Become what a container's first process is: root with these capabilities, permitted, effective and bounding."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(privileges._last_capability() + 1):
        if not mask >> number & 1:
            libc.prctl(24, number, 0, 0, 0)
    privileges._set_capabilities(libc, mask)


def facts(after):
    """What the process has after a drop, and what it can do with it."""

    def transparent():
        with socket.socket() as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)

    def bind_low():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.53", 53))

    return {
        "uids": sorted(after.uids),
        "gids": sorted(after.gids),
        "groups": sorted(after.groups),
        "permitted": after.permitted,
        "effective": after.effective,
        "bounding": after.bounding,
        "no_new_privs": after.no_new_privs,
        "transparent": not refused(transparent),
        "bind_low": not refused(bind_low),
        "root_again": not refused(os.setresuid, 0, 0, 0),
        "chown": not refused(os.chown, "/proc/self/cwd", 0, 0),
        "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
        "core": privileges.resource.getrlimit(privileges.resource.RLIMIT_CORE),
        "own_fds_readable": not refused(os.listdir, "/proc/self/fd"),
    }


GONE = {
    "uids": [UID],
    "gids": [GID],
    "groups": [],
    "no_new_privs": True,
    "root_again": False,
    "chown": False,
    "dumpable": 0,
    "core": [0, 0],
    "own_fds_readable": True,
}


@as_root
def test_from_full_root():
    def work():
        os.setgroups([4, 20])
        return facts(drop(UID, GID))

    found = in_child(work)
    assert found == GONE | {
        "permitted": KEPT,
        "effective": KEPT,
        "bounding": 0,
        "transparent": True,
        "bind_low": True,
    }


@as_root
@pytest.mark.parametrize("missing", [0, 1 << Capability.NET_RAW, KEPT])
def test_from_a_containers_root_without_setpcap(missing):
    start = KEPT & ~missing | 1 << Capability.SETUID | 1 << Capability.SETGID

    def work():
        limit_to(start)
        return facts(drop(UID, GID))

    found = in_child(work)
    kept = KEPT & ~missing
    assert found | {"bind_low": None, "transparent": None} == GONE | {
        "permitted": kept,
        "effective": kept,
        "bounding": start,
        "transparent": None,
        "bind_low": None,
    }
    assert found["transparent"] is bool(kept >> Capability.NET_RAW & 1)


@as_root
def test_one_supplementary_group_may_be_kept():
    def work():
        os.setgroups([4, 20])
        return facts(drop(UID, GID, 2000))

    assert in_child(work)["groups"] == [2000]


@as_root
def test_a_containers_root_enters_the_proxys_directories_as_the_proxy(tmp_path):
    tmp_path.chmod(0o755)
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    os.chown(directory, UID, GID)
    (directory / "file").write_text("x")

    def work():
        os.chdir(tmp_path)
        limit_to(KEPT | 1 << Capability.SETUID | 1 << Capability.SETGID)
        before = refused(os.open, "run", os.O_RDONLY | os.O_DIRECTORY)
        with privileges.acting_as(UID):
            descriptor = os.open("run", os.O_RDONLY | os.O_DIRECTORY)
            os.open("file", os.O_RDONLY, dir_fd=descriptor)
        found = facts(drop(UID, GID))
        os.open("file", os.O_RDONLY, dir_fd=descriptor)
        return [before, found["uids"], found["permitted"], found["root_again"]]

    assert in_child(work) == [True, [UID], KEPT, False]


@as_root
def test_a_process_that_is_the_user_already_has_nothing_to_drop():
    def work():
        os.setgroups([77])
        os.setresgid(GID, GID, GID)
        os.setresuid(UID, UID, UID)
        return facts(drop(UID, GID))

    found = in_child(work)
    assert (found["uids"], found["groups"], found["permitted"], found["no_new_privs"]) == ([UID], [77], 0, True)


@as_root
def test_dropping_twice_changes_nothing():
    def work():
        return drop(UID, GID) == drop(UID, GID)

    assert in_child(work)


@as_root
@pytest.mark.parametrize("capabilities", [0, 1 << Capability.SETGID])
def test_it_says_when_it_may_not_become_the_user(capabilities):
    def work():
        limit_to(capabilities)
        try:
            drop(UID, GID)
        except PrivilegeError as error:
            return str(error)
        return None

    assert "may not become uid 15801, gid 15802: start it as those, or as root with" in in_child(work)


def test_every_kind_of_leftover_is_named():
    clean = msgspec.structs.replace(
        read_status(),
        uids=frozenset({UID}), gids=frozenset({GID}), groups=frozenset(), inheritable=0, permitted=KEPT,
        effective=KEPT, bounding=0, ambient=0, no_new_privs=True, threads=1,
    )  # fmt: skip
    root = msgspec.structs.replace(clean, effective=(1 << 40) - 1, bounding=(1 << 40) - 1)
    assert leftovers(root, clean, UID, GID, KEPT) == []
    for change, words in [
        ({"uids": frozenset({UID, 0})}, "uids [0, 15801]"),
        ({"gids": frozenset({0})}, "gids [0]"),
        ({"groups": frozenset({7})}, "supplementary groups [7]"),
        ({"permitted": KEPT | 1}, "permitted capabilities 0x2401 instead of 0x2400"),
        ({"effective": 0}, "effective capabilities 0x0 instead of 0x2400"),
        ({"inheritable": 1}, "inheritable capabilities 0x1"),
        ({"ambient": 1}, "ambient capabilities 0x1"),
        ({"bounding": 2}, "bounding set 0x2"),
        ({"no_new_privs": False}, "no_new_privs is off"),
    ]:
        assert leftovers(root, msgspec.structs.replace(clean, **change), UID, GID, KEPT) == [words]
