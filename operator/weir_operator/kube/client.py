"""Requests to the API server: JSON over HTTPS, each with a limit in time and size, each failure an `ApiError`."""

from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

JSON = "application/json"


class Patch(StrEnum):
    """How a patch is meant: its content type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class Client:
    """Speaks to one API server. Use it as an async context manager, or `close()` it."""

    @classmethod
    def from_environment(cls, kubeconfig: str | None = None) -> "Client":
        """By this kubeconfig; without one, as the pod that this process is in, else by KUBECONFIG or ~/.kube/config.

        Raises `KubeconfigError`.
        """
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        raise NotImplementedError

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content_type: str = JSON,
        params: Mapping[str, str] | None = None,
        accept: str = JSON,
    ) -> bytes:
        """The body of the answer. `path` begins with /api or /apis; a `body` that is not bytes is sent as JSON."""
        raise NotImplementedError

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One object."""
        raise NotImplementedError

    async def list(self, path: str, params: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """All objects of a collection, asked for in pages. Items of a list have no apiVersion and kind."""
        raise NotImplementedError

    async def create(self, path: str, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object in a collection; what came of it."""
        raise NotImplementedError

    async def replace(self, path: str, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Put an object in the place of one; with a resourceVersion in it, Conflict if that is not the newest."""
        raise NotImplementedError

    async def patch(
        self, path: str, patch: Any, kind: Patch = Patch.MERGE, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Change an object; what came of it."""
        raise NotImplementedError

    async def delete(self, path: str, options: Mapping[str, Any] | None = None) -> None:
        """Remove an object; NotFound is an error as any. `options`: metav1.DeleteOptions."""
        raise NotImplementedError

    def lines(self, path: str, params: Mapping[str, str], accept: str = JSON) -> AsyncIterator[bytes]:
        """The lines of an answer that goes on: a watch."""
        raise NotImplementedError
