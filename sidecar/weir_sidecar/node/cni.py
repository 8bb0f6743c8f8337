"""CNI as the agent sees it: a request of the plugin, and the errors it may answer. Pure. CNI specification 1.1.0."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum

import msgspec

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What msgspec makes of a text that is none of ours: not JSON, of other types, not UTF-8, nested without end."""


class Command(StrEnum):
    """What the runtime may ask for. VERSION the plugin answers itself."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    STATUS = "STATUS"
    GC = "GC"


class Code(IntEnum):
    """Section "Error": 1 to 99 are the specification's, from 100 on the plugin's own."""

    INCOMPATIBLE_VERSION = 1
    INVALID_ENVIRONMENT = 4
    DECODING_FAILURE = 6
    INVALID_CONFIGURATION = 7
    TRY_AGAIN_LATER = 11
    NOT_CAPTURED = 100


class CNIError(Exception):
    """Ends a request. The text says what was found, what is allowed, and what to do."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code

    def render(self, version: str) -> bytes:
        """As the runtime reads it."""
        return msgspec.json.encode({"cniVersion": version, "code": int(self.code), "msg": str(self)})


class Attachment(msgspec.Struct, frozen=True, rename={"container_id": "containerID"}):
    """One that GC says is in use."""

    container_id: str
    ifname: str = ""


class Configuration(msgspec.Struct, frozen=True, rename={"version": "cniVersion", "previous": "prevResult"}):
    """The plugin's entry of the conflist, as the runtime completes it. Fields of other plugins are none of ours."""

    version: str = "0.3.1"
    name: str = ""
    previous: msgspec.Raw = msgspec.Raw()
    """What the plugins before us made: bytes, to be given on as they are. Empty where there is none."""
    valid: tuple[Attachment, ...] | None = msgspec.field(default=None, name="cni.dev/valid-attachments")


class Sandbox(msgspec.Struct, frozen=True):
    """A pod's sandbox as CNI_ARGS name it. containerd and CRI-O set them."""

    namespace: str
    name: str
    uid: str


class Request(msgspec.Struct, frozen=True):
    """What the runtime asks for."""

    command: Command
    container_id: str
    netns: str
    sandbox: Sandbox | None
    """None: not a pod of Kubernetes."""
    configuration: Configuration
    began: float | None = None
    """When the plugin was started, in seconds of this node's monotonic clock, if it said so."""


def version_of(stdin: bytes) -> str:
    """The version to answer in, where nothing else of the request may be readable."""
    try:
        return msgspec.json.decode(stdin, type=Configuration).version
    except _UNREADABLE:
        return VERSIONS[-1]


def read_request(environment: bytes, stdin: bytes) -> Request:
    """A request as the plugin forwards it: NUL-ended variables, and standard input. Raises `CNIError`."""
    values = _variables(environment)
    try:
        command = Command(values.get("CNI_COMMAND", ""))
    except ValueError as error:
        allowed = ", ".join(Command)
        raise CNIError(
            Code.INVALID_ENVIRONMENT, f"CNI_COMMAND: found {values.get('CNI_COMMAND', '')!r}; allowed are {allowed}"
        ) from error
    try:
        configuration = msgspec.json.decode(stdin, type=Configuration)
    except _UNREADABLE as error:
        raise CNIError(Code.DECODING_FAILURE, f"the network configuration cannot be read: {error}") from error
    if configuration.version not in VERSIONS:
        raise CNIError(
            Code.INCOMPATIBLE_VERSION,
            f"cniVersion: found {configuration.version!r}; allowed are {', '.join(VERSIONS)}",
        )
    request = Request(
        command=command,
        container_id=values.get("CNI_CONTAINERID", ""),
        netns=values.get("CNI_NETNS", ""),
        sandbox=_sandbox(values.get("CNI_ARGS", "")),
        configuration=configuration,
        began=_seconds(values.get("WEIR_BEGAN", "")),
    )
    _require(request)
    return request


def _require(request: Request) -> None:
    """What a command cannot do without. DEL must succeed with as little as possible."""
    command = request.command
    if command in {Command.ADD, Command.CHECK, Command.DEL} and not _is_name(request.container_id):
        raise CNIError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID: found {request.container_id!r}; letters, digits, '.', '_' and '-' are allowed",
        )
    if command in {Command.ADD, Command.CHECK}:
        if not request.netns.startswith("/"):
            raise CNIError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS: found {request.netns!r}; it must be a path")
        if not bytes(request.configuration.previous):
            raise CNIError(
                Code.INVALID_CONFIGURATION,
                "prevResult is missing: weir-cni makes no interface; put it behind the plugin that does",
            )


def _is_name(text: str) -> bool:
    """Whether it can be a file's name too."""
    allowed = text.isascii() and text.replace("_", "").replace("-", "").replace(".", "").isalnum()
    return allowed and text[0].isalnum() and len(text) <= 128


def _seconds(nanoseconds: str) -> float | None:
    return int(nanoseconds) / 1e9 if nanoseconds.isascii() and nanoseconds.isdigit() else None


def _variables(environment: bytes) -> dict[str, str]:
    entries = (entry.decode("utf-8", "replace").partition("=") for entry in environment.split(b"\0") if entry)
    return {name: value for name, _, value in entries}


def _sandbox(arguments: str) -> Sandbox | None:
    """CNI_ARGS, `K=V;K=V`."""
    pairs: Mapping[str, str] = {name: value for name, _, value in (one.partition("=") for one in arguments.split(";"))}
    named = (pairs.get("K8S_POD_NAMESPACE", ""), pairs.get("K8S_POD_NAME", ""))
    return Sandbox(*named, pairs.get("K8S_POD_UID", "")) if all(named) else None
