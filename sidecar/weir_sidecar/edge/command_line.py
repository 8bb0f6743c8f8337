"""The command line of the sidecar: options and their values. argparse would cost each pod 0.9 MiB, for as long as it lives."""

import os

from weir_sidecar.contract.config import ConfigError
from weir_sidecar.edge.opening import Options
from weir_sidecar.edge.stream_client import PodIdentity

_OPTIONS = {
    "run-dir": "tmpfs with config.json; ca.key and ca.crt are made there",
    "state-dir": "where trust.json and control.sock live",
    "record": "append flow records to this file, one JSON object a line; -: standard output",
    "ready-fd": "write a line to this descriptor when flows are served",
    "started-config": "the config whose rules the kernel has, where config.json may be a later one",
    "token-file": "the token for the config stream; WEIR_POD_NAMESPACE and WEIR_POD_NAME say whose",
    "group": "the only supplementary group to keep: it may read the token",
}
_REQUIRED = ("run-dir", "state-dir")
_NUMBERS = ("ready-fd", "group")


class UsageError(ValueError):
    """Arguments that are not understood; the text says which."""


def _values(arguments: list[str]) -> dict[str, str]:
    """Options and their values, `--name value` or `--name=value`. Raises `UsageError`."""
    values: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        name = option.removeprefix("--")
        if name not in _OPTIONS or option == name:
            raise UsageError(f"{argument!r} is no option of this program")
        found = value if equals else next(rest, None)
        if found is None or (name in _NUMBERS and not (found.isascii() and found.isdigit())):
            raise UsageError(f"{option} needs {'a number' if name in _NUMBERS else 'a value'}")
        values[name] = found
    if missing := [f"--{name}" for name in _REQUIRED if name not in values]:
        raise UsageError(f"{' and '.join(missing)} must be given")
    return values


def usage() -> str:
    """What can be asked for."""
    lines = (f"  --{name} {'N' if name in _NUMBERS else 'VALUE'}\n        {text}\n" for name, text in _OPTIONS.items())
    return f"usage: weir-sidecar --run-dir DIR --state-dir DIR [OPTIONS]\n{''.join(lines)}"


def read_options(arguments: list[str]) -> Options:
    """The options. Raises `UsageError`, and `ConfigError` where the environment lacks what goes with them."""
    values = _values(arguments)
    ready, group, token = values.get("ready-fd"), values.get("group"), values.get("token-file")
    return Options(
        run_dir=values["run-dir"],
        state_dir=values["state-dir"],
        record=values.get("record"),
        ready_fd=None if ready is None else int(ready),
        started_config=values.get("started-config"),
        pod=None if token is None else _pod(token),
        group=None if group is None else int(group),
    )


def _pod(token_file: str) -> PodIdentity:
    names = {name: os.environ.get(name, "") for name in ("WEIR_POD_NAMESPACE", "WEIR_POD_NAME")}
    try:
        return PodIdentity(names["WEIR_POD_NAMESPACE"], names["WEIR_POD_NAME"], token_file)
    except ValueError as error:
        raise ConfigError(f"--token-file needs {' and '.join(names)} in the environment: {error}") from error
