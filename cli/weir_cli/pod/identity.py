"""Who the command runs as: the person who called `weir run`, not root, when that came through sudo."""

import os
import pwd
from collections.abc import Mapping

import msgspec

from weir_cli.pod.errors import SetupError


class User(msgspec.Struct, frozen=True):
    """A user and the groups that are theirs."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str
    shell: str

    def environment(self) -> dict[str, str]:
        """What a login would say about this user."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}


def invoking(environ: Mapping[str, str], name: str | None) -> User | None:
    """The user to become: `--user`, else who called sudo. None: stay who we are, with the environment we have."""
    if name is not None:
        return _user(_by_name(name))
    sudo = environ.get("SUDO_UID", "")
    if not sudo.isdecimal() or int(sudo) == os.getuid():
        return None
    try:
        return _user(pwd.getpwuid(int(sudo)))
    except KeyError as error:
        raise SetupError(f"SUDO_UID is {sudo} and this machine has no such user; say who with --user NAME") from error


def refuse_proxy(uid: int, proxy: int) -> None:
    """Raise `SetupError` when the command would run as the proxy's user, whose packets are not captured."""
    if uid == proxy:
        raise SetupError(
            f"the command would run as UID {uid}, the proxy's own, and not be captured; use another --user"
        )


def _by_name(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError as error:
        raise SetupError(f"--user is {name!r} and this machine has no such user; see `getent passwd`") from error


def _user(entry: pwd.struct_passwd) -> User:
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return User(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir, entry.pw_shell)
