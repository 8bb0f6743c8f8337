"""What the images are made of, as far as it can be told without building them."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "images" / "Dockerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text().splitlines()


def test_uv_is_that_of_the_set_up_and_locked():
    (version,) = re.findall(r"^uv_version=(.+)$", (ROOT / "scripts" / "setup").read_text(), re.MULTILINE)
    locked = (ROOT / "images" / "uv.txt").read_text()
    assert f"\nuv=={version} \\\n" in locked
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", locked)) >= 2


def test_what_is_copied_is_there_and_is_let_in():
    copied = {
        source for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for source in line.split()
    }
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(f"!{source}".startswith(line) for line in IGNORE if line.startswith("!")), source


def test_the_base_is_an_argument_and_the_control_plane_is_not_root():
    assert re.search(r"^ARG BASE=docker\.io/library/debian:", DOCKERFILE, re.MULTILINE)
    assert "FROM ${BASE} AS python" in DOCKERFILE
    control = DOCKERFILE.partition("AS control\n")[2]
    assert re.search(r"^USER 65532:65532$", control, re.MULTILINE)


def test_without_a_builder_it_says_what_is_missing(tmp_path):
    for program in ("bash", "sed", "git", "dirname", "env"):
        found = subprocess.run(["which", program], capture_output=True, text=True, check=True).stdout.strip()
        (tmp_path / program).symlink_to(found)
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run([ROOT / "scripts" / "images"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "needs docker (with its daemon running), buildah or podman; none of them is here" in done.stderr
