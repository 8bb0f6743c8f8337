"""What the documents promise is there: links, make targets, commands and options, policies that are policies."""

import argparse
import importlib
import re
import subprocess
from pathlib import Path

import pytest

from weir_cli.main import COMMANDS
from weir_operator.load import load

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
USERS_PAGES = [page for page in PAGES if page.parent.name != "adr"]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
KINDS = {"added", "changed", "fixed", "removed", "security"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code(text):
    """What stands in fences and in backticks."""
    fences = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    return "\n".join(fences + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def anchors(page):
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@each_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@each_page
def test_make_targets_exist(page):
    for target in re.findall(r"\bmake ([a-z][a-z0-9-]*)", code(page.read_text())):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


@each_page
def test_scripts_exist(page):
    for script in re.findall(r"\bscripts/[\w.-]+", code(page.read_text())):
        assert (ROOT / script).exists(), script


def parser(command):
    made = argparse.ArgumentParser(prog=f"weir {command}")
    importlib.import_module(f"weir_cli.commands.{command}").add_arguments(made)
    return made


def options(made):
    """The options of a parser and of what is below it."""
    found = set()
    for action in made._actions:
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(options(sub) for sub in action.choices.values()))
    return found


@pytest.mark.parametrize("page", USERS_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page):
    # A word before is another program's (kubectl weir, cd weir, helm install weir); what follows -- is the command that
    # weir runs.
    called = r"(?:^|[\s/])(?<!kubectl )(?<!install )(?<!upgrade )weir ([a-z]+)\b([^\n]*)"
    for command, rest in re.findall(called, code(page.read_text())):
        assert command in COMMANDS, f"weir {command}"
        ours = re.split(r"\s--(?:\s|$)", re.sub(r"\s#.*", "", rest))[0]
        known = options(parser(command))
        for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", ours):
            assert option in known, f"weir {command} {option}"


def test_every_command_is_in_the_readme():
    for command in COMMANDS:
        assert f"`weir {command}" in README


def test_the_policy_in_the_readme_is_the_example():
    (policy,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    example = (ROOT / "docs" / "examples" / "deny-host.yaml").read_text()
    assert [loaded.document for loaded in load(policy.encode(), "readme")] == [
        loaded.document for loaded in load(example.encode(), "example")
    ]


def test_the_picture_in_the_readme_is_of_this_demo():
    (picture,) = re.findall(r"<!-- demo -->\n+```\n(.*?)```", README, re.DOTALL)
    acts = re.findall(r'^act "(\d\..*)"$', (ROOT / "scripts" / "demo").read_text(), re.MULTILINE)
    assert acts
    assert re.findall(r"^\d\..*$", picture, re.MULTILINE) == acts


def test_every_page_is_found_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name}" in index
    decisions = (ROOT / "docs" / "adr" / "README.md").read_text()
    for page in (ROOT / "docs" / "adr").glob("0*.md"):
        assert f"]({page.name})" in decisions
        assert page.read_text().startswith(f"# {page.name[:4]} ")


def test_fragments_of_the_changelog_are_named_as_agreed_and_assembled():
    assembled = subprocess.run([ROOT / "scripts" / "changelog"], capture_output=True, text=True, check=True).stdout
    for fragment in (ROOT / "changelog.d").glob("*.md"):
        assert fragment.suffixes[-2].removeprefix(".") in KINDS, fragment.name
        assert fragment.read_text().splitlines()[0] in assembled


def test_every_page_is_in_the_navigation_of_the_site():
    site = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in site


MKDOCS = ROOT / "build" / "docs" / "bin" / "mkdocs"


@pytest.mark.skipif(not MKDOCS.exists(), reason="MkDocs Material is not installed: make docs")
def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [MKDOCS, "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False, env={"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_every_recipe_of_the_cookbook_is_an_example():
    cookbook = (ROOT / "docs" / "cookbook.md").read_text()
    examples = {path.name for path in (ROOT / "docs" / "examples").glob("*.yaml")}
    shown = set(re.findall(r"\]\(examples/([\w.-]+)\)", cookbook))
    assert len(shown) == 5
    assert shown <= examples
