"""What the lab's web origins serve from disk: a page, a git repository, and a Python package index."""

import base64
import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

PACKAGE = "weir-lab-package"
_WHEEL = "weir_lab_package-1.0-py3-none-any.whl"


def make_content(root: Path) -> None:
    """Fill `root`. The same content each time, so that answers can be compared between runs."""
    root.mkdir()
    (root / "index.html").write_text("<title>lab</title>\n")
    if shutil.which("git"):
        _make_repository(root / "git" / "lab.git")
    _make_index(root / "simple" / PACKAGE)


def _make_repository(bare: Path) -> None:
    bare.mkdir(parents=True)
    identity = {
        "GIT_AUTHOR_NAME": "lab",
        "GIT_AUTHOR_EMAIL": "lab@weir.test",
        "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
        "GIT_COMMITTER_NAME": "lab",
        "GIT_COMMITTER_EMAIL": "lab@weir.test",
        "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
    }

    def git(*args: str, data: bytes = b"") -> str:
        command = ["git", "--git-dir", str(bare), *args]
        return (
            subprocess.run(command, env=identity, input=data, capture_output=True, check=True).stdout.decode().strip()
        )

    git("init", "-q", "--bare", "-b", "main")
    blob = git("hash-object", "-w", "--stdin", data=b"a file of the lab\n" * 1000)
    tree = git("mktree", data=f"100644 blob {blob}\tREADME\n".encode())
    commit = git("commit-tree", tree, "-m", "The lab's only commit")
    git("update-ref", "refs/heads/main", commit)


def _make_index(directory: Path) -> None:
    directory.mkdir(parents=True)
    info = "weir_lab_package-1.0.dist-info"
    files = {
        "weir_lab_package.py": "ANSWER = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_urlsafe(text)},{len(text)}\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(directory / _WHEEL, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(zipfile.ZipInfo(name), text)
    digest = hashlib.sha256((directory / _WHEEL).read_bytes()).hexdigest()
    (directory / "index.html").write_text(f'<a href="{_WHEEL}#sha256={digest}">{_WHEEL}</a>\n')


def _urlsafe(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
