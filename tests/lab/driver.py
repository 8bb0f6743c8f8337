"""Runs a list of commands, a few at a time, and writes down how each ended: what a lab run starts inside a pod.

`driver.py JOBS.json RESULTS.json`. A job is {id, argv, env, attempts, timeout}; it is run again until it succeeds or its
attempts are used up. A result is the list of its attempts, {status, stdout, stderr}; status None: it did not end in time.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

AT_ONCE = 3


def _attempt(job: dict[str, Any]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            job["argv"],
            env={**os.environ, **job["env"]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=job["timeout"],
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"status": None, "stdout": "", "stderr": f"did not end in {job['timeout']} s"}
    return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def _job(job: dict[str, Any]) -> list[dict[str, Any]]:
    attempts: list[dict[str, Any]] = []
    while len(attempts) < job["attempts"] and not (attempts and attempts[-1]["status"] == 0):
        attempts.append(_attempt(job))
    return attempts


def main(jobs_file: str, results_file: str) -> None:
    jobs = json.loads(Path(jobs_file).read_text())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = dict(zip([job["id"] for job in jobs], pool.map(_job, jobs), strict=True))
    Path(results_file).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
