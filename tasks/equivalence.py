r"""Whether two answers mean the same, by math-verify in a separate process. No torch here.

math-verify calculates, so an answer like 9^{9^{9}} can cost any time and memory, in code that no signal interrupts;
its own time limit is such a signal and refuses to work in threads. Here the system ends the process that takes too
long, the answer counts as different, and the next one gets a new process.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from eva_bench.system.paths import ROOT

LONGEST = 300  # characters; nothing longer is an answer
CPU_SECONDS = 2  # for one pair; processor time, so that a busy machine changes no score
MEMORY_BYTES = 4 * 1024**3


def equivalent(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether math-verify finds the second of each pair (answer) equal to the first (target).

    Raises:
        RuntimeError: math-verify does not start at all.
    """
    with _lock:
        known = {pair: _ask(*pair) for pair in dict.fromkeys(pairs)}
    return [known[pair] for pair in pairs]


_lock = threading.Lock()
_process: subprocess.Popen | None = None


def _ask(target: str, answer: str) -> bool:
    global _process
    if not answer or max(len(target), len(answer)) > LONGEST:
        return False
    _process = _process or _started()
    _process.stdin.write(json.dumps([target, answer]) + "\n")
    _process.stdin.flush()
    verdict = _process.stdout.readline()
    if not verdict:  # it was ended
        _process.wait()
        _process = None
    return verdict == "True\n"


def _started() -> subprocess.Popen:
    command = [sys.executable, "-m", "tasks.equivalence"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)  # Ctrl-C is the run's affair
    if process.stdout.readline() != "ready\n":
        raise RuntimeError("math-verify does not start: python -m tasks.equivalence")
    return process


@atexit.register
def _stop() -> None:
    if _process is not None:
        _process.stdin.close()  # the end of its input is the end of the process
        _process.wait()


def _serve() -> None:
    """The other side: a pair per line in, True or False per line out."""
    from math_verify import parse, verify  # noqa: PLC0415 - this side alone needs it and it takes a second

    logging.disable(logging.CRITICAL)  # it warns of every answer that it cannot read
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    print("ready", flush=True)
    for line in sys.stdin:
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + CPU_SECONDS, most))
        target, answer = (parse(f"${text}$", parsing_timeout=None) for text in json.loads(line))
        print(bool(target and answer and verify(target, answer, timeout_seconds=None)), flush=True)


if __name__ == "__main__":
    _serve()
