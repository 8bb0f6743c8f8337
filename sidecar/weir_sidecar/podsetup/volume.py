"""Files in a pod's volumes, whose root anybody in the pod may be able to write to.

The root of an emptyDir has mode 0777 (or is set-group-ID of the pod's fsGroup): nothing in it is followed or trusted that
this process's user did not make.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress

from weir_sidecar.podsetup.errors import SetupError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Directory:
    """An open directory. `path` is for people, and for the applications that find it there."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def volume(cls, path: str) -> "Directory":
        """The root of a volume. Raises `SetupError`."""
        try:
            return cls(path, os.open(path, _DIRECTORY))
        except OSError as error:
            raise SetupError(
                f"{path}: {error.strerror}; it must be a volume that is mounted into this container"
            ) from error

    def subdirectory(self, name: str, mode: int) -> "Directory":
        """A directory of this process's user, made where it is missing. Raises `SetupError`."""
        path = f"{self.path}/{name}"
        try:
            with suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=self.descriptor)
            descriptor = os.open(name, _DIRECTORY, dir_fd=self.descriptor)
            _require_own(path, os.fstat(descriptor))
            os.fchmod(descriptor, mode)
        except OSError as error:
            raise _unusable(path, error) from error
        return Directory(path, descriptor)

    def write(self, name: str, data: bytes, mode: int) -> None:
        """A file with this content, now or already. Raises `SetupError`.

        A new file appears whole. One that is there is changed in place: containers have it mounted (`subPath` binds the
        file, not its name) and would keep the old one. It never is empty meanwhile, and what is equal is not touched.
        """
        path = f"{self.path}/{name}"
        try:
            descriptor = os.open(name, os.O_RDWR | _FILE, dir_fd=self.descriptor)
        except FileNotFoundError:
            self._create(name, data, mode)
            return
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            found = os.fstat(descriptor)
            _require_own(path, found)
            if not stat.S_ISREG(found.st_mode):
                raise SetupError(f"{path}: found something that is no file; remove it")
            if os.pread(descriptor, len(data) + 1, 0) != data:
                _write_all(descriptor, data)
                os.ftruncate(descriptor, len(data))
            os.fchmod(descriptor, mode)
        except OSError as error:
            raise _unusable(path, error) from error
        finally:
            os.close(descriptor)

    def read(self, name: str) -> bytes | None:
        """A file that this process's user wrote; None where there is none. Raises `SetupError`."""
        try:
            with os.fdopen(os.open(name, os.O_RDONLY | _FILE, dir_fd=self.descriptor), "rb") as file:
                _require_own(f"{self.path}/{name}", os.fstat(file.fileno()))
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(f"{self.path}/{name}", error) from error

    def hold(self, files: Mapping[str, bytes], links: Mapping[str, str], mode: int) -> None:
        """These files and links and no others. Raises `SetupError`."""
        for name, data in files.items():
            self.write(name, data, mode)
        try:
            for name, target in links.items():
                self._link(name, target)
            with os.scandir(self.descriptor) as found:
                old = [entry.name for entry in found if entry.name not in {*files, *links}]
            for name in old:
                os.unlink(name, dir_fd=self.descriptor)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def _create(self, name: str, data: bytes, mode: int) -> None:
        part = f".{name}.part"
        try:
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=self.descriptor)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=self.descriptor)
            try:
                _write_all(descriptor, data)
                os.fchmod(descriptor, mode)
            finally:
                os.close(descriptor)
            os.rename(part, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except OSError as error:
            raise _unusable(f"{self.path}/{name}", error) from error

    def _link(self, name: str, target: str) -> None:
        try:
            if os.readlink(name, dir_fd=self.descriptor) == target:
                return
            os.unlink(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            pass
        os.symlink(target, name, dir_fd=self.descriptor)


def read_together(directory: str, names: Iterable[str]) -> dict[str, bytes]:
    """The files of a Secret's or ConfigMap's volume that are there, all of one version.

    The kubelet changes all at once, by pointing the link `..data` to another directory. Raises `OSError`.
    """
    data = f"{directory}/..data"
    descriptor = os.open(data if os.path.isdir(data) else directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH112
    found = {}
    try:
        for name in names:
            with suppress(FileNotFoundError), os.fdopen(os.open(name, os.O_RDONLY, dir_fd=descriptor), "rb") as file:
                found[name] = file.read()
    finally:
        os.close(descriptor)
    return found


def _require_own(path: str, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise SetupError(
            f"{path}: found it owned by uid {found.st_uid}; only what uid {os.geteuid()} made is used: remove it, and let no"
            " other container write to this volume"
        )


def _write_all(descriptor: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], written)


def _unusable(path: str, error: OSError) -> SetupError:
    return SetupError(
        f"{path}: {error.strerror}; it must be a plain file or directory (no link) in a volume that this container may write"
        " to and that has room"
    )
