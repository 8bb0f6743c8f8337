"""API objects to the models that policy files are read to, by the same decoder."""

from collections.abc import Mapping
from typing import Any

from weir_operator.decode import Decoder
from weir_operator.load import Loaded, read_document
from weir_operator.models import InterceptionPolicy, TrustPolicy
from weir_operator.nodes import node_of
from weir_operator.problems import PolicyError

_METADATA = ("name", "namespace")
"""What a policy's meaning depends on; the rest of it is the API server's and other people's."""


def read_object(obj: Mapping[str, Any]) -> Loaded[InterceptionPolicy] | Loaded[TrustPolicy]:
    """A policy as the API server has it. Raises `PolicyError`; its problems are of the "file" KIND NAMESPACE/NAME."""
    decoder = Decoder(called(obj))
    metadata = obj.get("metadata") or {}
    parts = {key: value for key, value in obj.items() if key not in ("metadata", "status")}
    parts["metadata"] = {key: metadata[key] for key in _METADATA if key in metadata}
    document = read_document(node_of(parts), decoder)
    if document is None or decoder.problems:
        raise PolicyError(decoder.problems)
    if isinstance(document, TrustPolicy):
        return Loaded(called(obj), document, decoder.positions)
    return Loaded(called(obj), document, decoder.positions)


def called(obj: Mapping[str, Any]) -> str:
    """What people call an object: KIND NAMESPACE/NAME, or KIND NAME."""
    metadata = obj.get("metadata") or {}
    return f"{obj.get('kind')} {'/'.join(str(metadata[key]) for key in reversed(_METADATA) if key in metadata)}"
