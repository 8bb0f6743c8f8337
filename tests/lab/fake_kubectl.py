"""A kubectl on the PATH that answers from a table and remembers what it was asked: for the words of the program alone."""

import json
import os
import sys
from pathlib import Path

_SCRIPT = """#!{python}
import json, sys
from pathlib import Path
home = Path({home!r})
asked = sys.argv[1:]
with (home / "asked.jsonl").open("a") as log:
    log.write(json.dumps({{"argv": asked, "stdin": "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()}}) + "\\n")
for words, status, out, err in json.loads((home / "answers.json").read_text()):
    if all(word in asked for word in words):
        sys.stdout.write(out)
        sys.stderr.write(err)
        raise SystemExit(status)
sys.stderr.write("error: the test has no answer to " + " ".join(asked))
raise SystemExit(1)
"""


class FakeKubectl:
    """Put its directory first on the PATH. `answer` says what to print when all the words are asked."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._answers: list[tuple[list[str], int, str, str]] = []
        program = home / "kubectl"
        program.write_text(_SCRIPT.format(python=sys.executable, home=str(home)))
        program.chmod(0o755)
        self.path = f"{home}{os.pathsep}{os.environ['PATH']}"
        self._save()

    def answer(self, *words: str, out: object = "", err: str = "", status: int = 0) -> None:
        text = out if isinstance(out, str) else json.dumps(out)
        self._answers.append((list(words), status, text, err))
        self._save()

    def asked(self) -> list[list[str]]:
        """The arguments of each call."""
        return [call["argv"] for call in self._calls()]

    def given(self) -> list[str]:
        """The standard input of each call."""
        return [call["stdin"] for call in self._calls()]

    def _calls(self) -> list[dict[str, list[str] | str]]:
        log = self._home / "asked.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def _save(self) -> None:
        (self._home / "answers.json").write_text(json.dumps(self._answers))
