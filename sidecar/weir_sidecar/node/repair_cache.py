"""What the container runtime noted of its sandboxes: which of them were made while the plugin was away. Pure.

libcni, which containerd and CRI-O use, keeps a file for each sandbox and network below its cache directory until DEL has
succeeded: who the pod is, the configuration list that was carried out, and its result. So whether our plugin was in that list
needs to be asked of nobody. Kind `cniCacheV1`; https://github.com/containernetworking/cni/blob/main/libcni/api.go,
cachedInfo.
"""

import base64
import binascii

import msgspec

from weir_sidecar.node.cni import Command, Configuration, Request, Sandbox
from weir_sidecar.node.conflist import TYPE

DIRECTORY = "results"
"""In the cache directory: the files."""


class _Interface(msgspec.Struct, frozen=True):
    sandbox: str = ""


class _Result(msgspec.Struct, frozen=True):
    interfaces: tuple[_Interface, ...] = ()


class _Cached(msgspec.Struct, frozen=True, rename="camel"):
    container_id: str
    config: str
    """The configuration list, base64."""
    result: msgspec.Raw
    netns: str = ""
    """libcni 1.2 and later."""
    cni_args: tuple[tuple[str, str], ...] | None = None


class _Plugin(msgspec.Struct, frozen=True):
    type: str = ""


class _Conflist(msgspec.Struct, frozen=True):
    plugins: tuple[_Plugin, ...] = ()


def slipped(text: bytes) -> Request | None:
    """The ADD that our plugin would have been asked for; None: it was, or this is no pod's interface, or unreadable.

    Runtimes add loopback to each sandbox by a list of its own, which no plugin of ours belongs to.
    """
    try:
        cached = msgspec.json.decode(text, type=_Cached)
        conflist = msgspec.json.decode(base64.b64decode(cached.config, validate=True), type=_Conflist)
        result = msgspec.json.decode(cached.result, type=_Result)
    except (msgspec.MsgspecError, binascii.Error, UnicodeError):
        return None
    types = [plugin.type for plugin in conflist.plugins]
    arguments = dict(cached.cni_args or ())
    named = (arguments.get("K8S_POD_NAMESPACE", ""), arguments.get("K8S_POD_NAME", ""))
    # A result of before libcni 1.2 names the namespace with the interface that is in it.
    netns = cached.netns or next((one.sandbox for one in result.interfaces if one.sandbox), "")
    if TYPE in types or types == ["loopback"] or not all(named) or not netns.startswith("/"):
        return None
    return Request(
        command=Command.ADD,
        container_id=cached.container_id,
        netns=netns,
        sandbox=Sandbox(*named, arguments.get("K8S_POD_UID", "")),
        configuration=Configuration(previous=cached.result),
    )
