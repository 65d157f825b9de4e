"""What a person sees while a run works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """One plain line to standard output."""
    console.print(text, markup=False)


def warn(text: str) -> None:
    """One line to standard error; nothing stops."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """For a person: `40 s`, `12 min`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class Bar:
    """Progress of one phase.

    On a terminal a bar; elsewhere a line at the start, after ten seconds, and then every tenth of the work or every
    minute.

    Args:
        quiet_s: work that is done within these seconds shows nothing.
    """

    def __init__(self, title: str, quiet_s: float = 0.0):
        self.title = title
        self.quiet_s = quiet_s
        self.start = self.last_line = time.monotonic()
        self.tenth = 0
        self.said = -1  # how much was done when the last line was printed
        self.patience_s = 10.0  # for the first line that can say how long it takes
        self.progress: Progress | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        if time.monotonic() - self.start < self.quiet_s:
            return
        if console.is_terminal:
            self._draw(done, total, note)
        else:
            self._print(done, total, note)

    def _draw(self, done: int, total: int, note: str) -> None:
        if self.progress is None:
            columns = (
                "{task.description}",
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self.progress = Progress(*columns, console=console)
            self.progress.start()
            self.task = self.progress.add_task(self.title, total=total, note=note)
        self.progress.update(self.task, completed=done, total=total, note=note)

    def _print(self, done: int, total: int, note: str) -> None:
        now, tenth = time.monotonic(), 10 * done // max(total, 1)
        if done == self.said:
            return
        if done == 0:
            say(f"{self.title}: 0/{total}")
            self.said = 0
        elif tenth > self.tenth or now - self.last_line > self.patience_s or done == total:
            speed = done / max(now - self.start, 1e-9)
            left = max(total - done, 0) / max(speed, 1e-9)
            parts = (f"{self.title}: {done}/{total}", note, f"{speed:.1f}/s, {duration(left)} left")
            say("  ".join(filter(None, parts)))
            self.said, self.tenth, self.last_line, self.patience_s = done, tenth, now, 60.0

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_) -> None:
        self.close()
