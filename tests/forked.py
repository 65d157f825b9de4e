"""Commands in processes of their own that begin at once: forks of a server that has imported torch and the suite.

For what signals and other processes do to a run; other tests begin `python run.py` from nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.conftest import ROOT

PRELOADED = [
    "eva_bench.cli",
    "eva_bench.run.pipeline",
    "peft",
    "lm_eval.models.huggingface",
    "lm_eval.evaluator",
    "datasets",
    "tests.forked",
]
TIMEOUT_S = 150

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(PRELOADED)


class Command:
    """`python run.py <arguments>` on its way.

    Attributes:
        process: with `pid`, `kill` and `is_alive`.
        output: the file of all that it says.
    """

    def __init__(
        self,
        arguments: list[str],
        output: Path,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ):
        """Start it.

        Args:
            arguments: of run.py.
            output: a file that is made, or continued.
            environment: variables beside those of the tests.
            prepare: called in the process before the command.
        """
        output.parent.mkdir(parents=True, exist_ok=True)
        self.output = output
        given = (arguments, output, dict(environment or {}), prepare)
        self.process = SERVER.Process(target=_run, args=given, daemon=True)
        self.process.start()

    def said(self) -> str:
        """All that it has said so far."""
        return self.output.read_text(encoding="utf-8") if self.output.exists() else ""

    def wait_for(self, text: str) -> None:
        """Wait until it says something. Raises AssertionError if it ends before."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.said():
            assert self.process.is_alive() and time.monotonic() < deadline, f"no '{text}' in:\n{self.said()[-3000:]}"
            time.sleep(0.01)

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    def end(self) -> int:
        """Wait for its end; the exit code. Raises AssertionError if it does not end."""
        self.process.join(TIMEOUT_S)
        assert self.process.exitcode is not None, f"it does not end:\n{self.said()[-3000:]}"
        return self.process.exitcode


def in_two_ranks(arguments: list[str], folder: Path, prepare: Callable[[], None] | None = None) -> tuple[int, str]:
    """A command as torchrun starts it in two processes: the larger exit code, and what both say."""
    launched = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        Command(arguments, folder / f"rank{rank}.txt", launched | {"RANK": rank, "LOCAL_RANK": rank}, prepare)
        for rank in ("0", "1")
    ]
    codes = [rank.end() for rank in ranks]
    return max(codes), "".join(rank.said() for rank in ranks)


def free_port() -> int:
    """A port of this machine that nobody listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _run(arguments: list[str], output: Path, environment: dict[str, str], prepare: Callable[[], None] | None) -> None:
    os.chdir(ROOT)
    os.environ.update(environment)
    with output.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = ["run.py", *arguments]
    from eva_bench import cli

    if prepare is not None:
        prepare()
    sys.exit(cli.main())
