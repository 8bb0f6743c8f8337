"""The plugin on a node: put there, put back when the main CNI writes its file anew, and taken away."""

import json
from pathlib import Path

import pytest

from weir_sidecar.node.install import Installation

MAIN = {"cniVersion": "1.0.0", "name": "main", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}


class Node:
    def __init__(self, root: Path) -> None:
        self.conf, self.bin, self.source = root / "net.d", root / "bin", root / "weir-cni"
        self.conf.mkdir()
        self.bin.mkdir()
        self.source.write_bytes(b"program 1")
        self.said: list[str] = []
        self.installation = Installation(str(self.conf), str(self.bin), self.said.append)

    def write(self, name: str = "10-main.conflist", text: str = json.dumps(MAIN)) -> Path:
        path = self.conf / name
        path.write_text(text)
        return path

    def types(self, name: str = "10-main.conflist") -> list[str]:
        return [plugin["type"] for plugin in json.loads((self.conf / name).read_text())["plugins"]]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_entry_is_put_in_once_and_put_back(node: Node) -> None:
    path = node.write()
    path.chmod(0o600)
    for _ in ("new", "written anew"):
        for _ in range(3):
            node.installation.look()
        assert node.types() == ["bridge", "portmap", "weir-cni"]
        assert path.stat().st_mode & 0o777 == 0o600
        node.write()
    assert len(node.said) == 2
    assert [one.name for one in node.conf.iterdir()] == ["10-main.conflist"]


def test_only_the_file_that_the_runtime_takes_is_changed(node: Node) -> None:
    node.write("99-other.conflist")
    node.installation.look()
    assert node.types("99-other.conflist")[-1] == "weir-cni"
    node.write()
    node.write("90-disabled.bak")
    node.installation.look()
    assert (node.types()[-1], node.types("90-disabled.bak")[-1]) == ("weir-cni", "portmap")


def test_a_file_that_is_missing_or_no_list_is_waited_for(node: Node) -> None:
    node.installation.look()
    path = node.write(text='{"plugins": [')
    node.installation.look()
    (said,) = node.said
    assert str(path) in said
    node.write()
    node.installation.look()
    assert node.types()[-1] == "weir-cni"
    path.unlink()
    node.installation.look()
    assert "no network configuration any more" in node.said[-1]


def test_the_program_is_replaced_when_it_is_another_one(node: Node) -> None:
    target = node.bin / "weir-cni"
    node.installation.put_program(str(node.source))
    first = target.stat()
    assert (target.read_bytes(), first.st_mode & 0o777) == (b"program 1", 0o755)
    node.installation.put_program(str(node.source))
    assert target.stat().st_ino == first.st_ino
    node.source.write_bytes(b"program 2")
    node.installation.put_program(str(node.source))
    assert target.read_bytes() == b"program 2"


def test_uninstalling_leaves_what_was_there_before(node: Node) -> None:
    node.write()
    node.write("99-other.conflist")
    node.installation.put_program(str(node.source))
    node.installation.look()
    for _ in ("once", "twice"):
        node.installation.remove()
    assert json.loads((node.conf / "10-main.conflist").read_text()) == MAIN
    assert list(node.bin.iterdir()) == []


SINGLE = {"cniVersion": "0.4.0", "name": "one", "type": "bridge", "ipam": {"type": "host-local"}}
LIST_OF_IT = "+weir-10-main.conf.conflist"


def names(node: Node) -> list[str]:
    return sorted(one.name for one in node.conf.iterdir())


def test_a_file_of_one_plugin_gets_a_list_before_it_and_stays_as_it_is(node: Node) -> None:
    text = json.dumps(SINGLE)
    path = node.write("10-main.conf", text)
    for _ in range(2):
        node.installation.look()
    assert names(node) == [LIST_OF_IT, "10-main.conf"]  # runtimes take the first
    made = json.loads((node.conf / LIST_OF_IT).read_text())
    assert made == {"cniVersion": "0.4.0", "name": "one", "plugins": [SINGLE, {"type": "weir-cni"}]}
    assert path.read_text() == text
    assert len(node.said) == 1


def test_the_list_follows_the_file_that_it_stands_for(node: Node) -> None:
    node.write("10-main.conf", json.dumps(SINGLE))
    node.installation.look()
    node.write("10-main.conf", json.dumps({**SINGLE, "name": "two"}))
    node.installation.look()
    assert json.loads((node.conf / LIST_OF_IT).read_text())["name"] == "two"
    (node.conf / LIST_OF_IT).unlink()
    node.installation.look()
    assert json.loads((node.conf / LIST_OF_IT).read_text())["name"] == "two"
    node.write("05-better.conflist")
    node.installation.look()
    assert names(node) == ["05-better.conflist", "10-main.conf"]
    assert node.types("05-better.conflist")[-1] == "weir-cni"
    (node.conf / "05-better.conflist").unlink()
    node.installation.look()
    assert names(node) == [LIST_OF_IT, "10-main.conf"]
    (node.conf / "10-main.conf").unlink()
    node.installation.look()
    assert names(node) == []


def test_uninstalling_takes_the_list_and_leaves_the_file(node: Node) -> None:
    node.write("10-main.conf", json.dumps(SINGLE))
    node.installation.look()
    # Another process does, which has not seen what this one has.
    Installation(str(node.conf), str(node.bin), node.said.append).remove()
    assert names(node) == ["10-main.conf"]
    assert json.loads((node.conf / "10-main.conf").read_text()) == SINGLE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON object"),
        ("{}", "it has no type"),
        (json.dumps({**SINGLE, "cniVersion": "0.2.0"}), "cniVersion is '0.2.0'"),
        (json.dumps({"name": "old", "type": "bridge"}), "cniVersion is '0.1.0'"),
    ],
)
def test_a_file_that_no_list_can_be_made_of_is_named(node: Node, text: str, words: str) -> None:
    node.write("10-main.conf", text)
    for _ in range(2):
        node.installation.look()
    (said,) = node.said
    assert "10-main.conf: " in said
    assert words in said
    assert names(node) == ["10-main.conf"]
