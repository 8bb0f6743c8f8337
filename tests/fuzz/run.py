"""Fuzz with atheris: `run.py` runs every target for FUZZ_SECONDS each, `run.py TARGET [libFuzzer option…]` runs one.

What was found interesting is kept in build/fuzz/TARGET and is where the next run starts. An input that fails is written
to build/fuzz/crash-…, and `run.py TARGET build/fuzz/crash-…` runs just that.
"""

import os
import subprocess
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "sidecar")]
with atheris.instrument_imports(include=["weir_sidecar"]):
    from fuzz.targets import TARGETS, seeds, within_limit

LARGEST = 70000  # bytes: a little over the limits of the parsers


def run_all() -> int:
    seconds = os.environ.get("FUZZ_SECONDS", "60")
    failed = []
    for name in TARGETS:
        corpus = ROOT / "build" / "fuzz" / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds(name)):
            (corpus / f"seed-{number}").write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={LARGEST}",
            f"-artifact_prefix={corpus.parent}/",
            "-timeout=5",
        ]
        print(f"fuzz: {name} for {seconds} s", flush=True)
        ran = subprocess.run([sys.executable, __file__, name, *options, "-verbosity=0", str(corpus)], check=False)
        if ran.returncode:
            failed.append(name)
    print(f"fuzz: failed: {', '.join(failed)}" if failed else "fuzz: nothing found")
    return bool(failed)


def run_one(name: str, options: list[str]) -> None:
    atheris.Setup([sys.argv[0], *options], within_limit(TARGETS[name]))
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        raise SystemExit(run_all())
    run_one(sys.argv[1], sys.argv[2:])
