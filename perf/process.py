"""One command started cold: what it costs and what it prints."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eva_bench.system.paths import ROOT


@dataclass(frozen=True)
class Finished:
    """A command that has ended: wall and processor seconds, peak resident bytes, exit code, all output."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    code: int
    output: str

    def checked(self) -> Finished:
        """The same. Raises RuntimeError with the end of the output if the command failed."""
        if self.code:
            raise RuntimeError(f"exit code {self.code}:\n{self.output[-4000:]}")
        return self


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command in the repository and wait for it.

    Args:
        command: program and arguments.
        environment: its variables; None for this process's, with W&B offline.
    """
    environment = environment or os.environ | {"WANDB_MODE": "offline"}
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        return Finished(
            seconds, cpu_seconds, usage.ru_maxrss * 1024, process.returncode, output.read().decode(errors="replace")
        )
