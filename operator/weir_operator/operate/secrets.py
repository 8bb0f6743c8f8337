"""The two Secrets of the control plane, and the webhook configurations, as values. Pure.

`weir-ca` has the CA: `tls.crt`, `tls.key`, and `previous.crt`, the CAs before it that are still trusted. Only the operator
may read it. `weir-serving` has what the serving replicas need: `tls.crt`, `tls.key`, and `ca.crt`, all CAs to be trusted.
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Any

from weir_operator.operate.certificates import Forced, Held, Kept, KeyPair, readable, split

ROTATE = "weir.dev/rotate"
"""Annotation: whatever its value, what the Secret holds is made anew, and the annotation taken away."""

type Manifest = dict[str, Any]


def held(ca: Mapping[str, Any] | None, serving: Mapping[str, Any] | None) -> Held:
    """What the Secrets hold. What is missing or cannot be read is None, and will be made anew.

    A CA that is gone leaves its certificate in the other Secret: it stays trusted while the next one is announced.
    """
    authority = _pair(ca)
    told = split(_field(ca, "previous.crt")) if authority else split(_field(serving, "ca.crt"))
    return Held(authority, told, _pair(serving))


def forced(ca: Mapping[str, Any] | None, serving: Mapping[str, Any] | None) -> Forced:
    """What a person asked to be made anew."""
    return Forced(authority=_asked(ca), serving=_asked(serving))


def ca_data(kept: Kept) -> dict[str, str]:
    """The data of the Secret with the CA."""
    return _data(
        {
            "tls.crt": kept.authority.certificate,
            "tls.key": kept.authority.key,
            "previous.crt": b"".join(kept.previous),
        }
    )


def serving_data(kept: Kept) -> dict[str, str]:
    """The data of the Secret that the serving replicas read."""
    return _data({"tls.crt": kept.serving.certificate, "tls.key": kept.serving.key, "ca.crt": kept.bundle})


def updated(
    secret: Mapping[str, Any] | None, name: str, data: Mapping[str, str], owner: Mapping[str, Any] | None
) -> Manifest | None:
    """The Secret as it ought to be, made of what it is (None: it is not there); None: nothing is to be done.

    `owner`, an ownerReference, makes it go when the installation does.
    """
    if secret is not None and secret.get("data") == data and not _asked(secret):
        return None
    metadata = dict((secret or {}).get("metadata") or {"name": name})
    metadata["labels"] = {**(metadata.get("labels") or {}), "app.kubernetes.io/part-of": "weir"}
    metadata["annotations"] = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != ROTATE}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    kind = (secret or {}).get("type", "kubernetes.io/tls")
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": dict(data)}


def bundle_patch(configuration: Mapping[str, Any], bundle: bytes) -> list[dict[str, Any]]:
    """The JSON patch (RFC 6902) that makes a webhook configuration trust these CAs; empty: it does."""
    encoded = b64encode(bundle).decode()
    changes = [
        {"op": "add", "path": f"/webhooks/{number}/clientConfig/caBundle", "value": encoded}
        for number, webhook in enumerate(configuration.get("webhooks") or ())
        if webhook["clientConfig"].get("caBundle") != encoded
    ]
    if not changes:
        return []
    version = configuration["metadata"]["resourceVersion"]  # the numbers above are of this very state
    return [{"op": "test", "path": "/metadata/resourceVersion", "value": version}, *changes]


def _pair(secret: Mapping[str, Any] | None) -> KeyPair | None:
    return readable(KeyPair(_field(secret, "tls.crt"), _field(secret, "tls.key")))


def _field(secret: Mapping[str, Any] | None, name: str) -> bytes:
    try:
        return b64decode(((secret or {}).get("data") or {}).get(name, ""))
    except Base64Error:
        return b""


def _asked(secret: Mapping[str, Any] | None) -> bool:
    return ROTATE in (((secret or {}).get("metadata") or {}).get("annotations") or {})


def _data(fields: Mapping[str, bytes]) -> dict[str, str]:
    return {name: b64encode(value).decode() for name, value in fields.items()}
