"""API objects to the models that policy files are read to, by the same decoder."""

from collections.abc import Mapping
from typing import Any

from weir_operator.load import Loaded
from weir_operator.models import InterceptionPolicy, TrustPolicy


def read_object(obj: Mapping[str, Any]) -> Loaded[InterceptionPolicy] | Loaded[TrustPolicy]:
    """A policy as the API server has it. Raises `PolicyError`; its problems are of the "file" KIND NAMESPACE/NAME."""
    raise NotImplementedError
