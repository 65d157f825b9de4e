"""Weights & Biases as a mirror of the record: any error is one warning, never a failed run."""

from __future__ import annotations

import netrc
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from eva_bench.records.record import Record
from eva_bench.settings.schema import TrackingSettings
from eva_bench.settings.spec import Origins, RunSpec
from eva_bench.system.progress import warn
from eva_bench.system.signals import Interrupted

FINISH_S = 30.0  # how long a finished run waits for W&B


class Tracker:
    """One W&B run per run id: the same id again continues the same W&B run.

    `mode=auto` is online where somebody is logged in and offline otherwise. After the first error the
    tracker says so once and stays silent.
    """

    def __init__(self, tracking: TrackingSettings, folder: Path, fresh: bool = False):
        """`fresh`: replace what W&B has under the id, instead of continuing it."""
        self.tracking, self.folder, self.fresh = tracking, folder, fresh
        self.run: Any = None  # of W&B, once it has started
        self.broken = tracking.mode == "off"
        self.where = "off"

    def start(self, run_id: str, config: dict[str, Any], group: str, tags: Sequence[str] = ()) -> None:
        self._guard(self._start, run_id, config, group, tags)

    def _start(self, run_id: str, config: dict[str, Any], group: str, tags: Sequence[str]) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb  # noqa: PLC0415 - most runs of a sweep and all tables do without

        mode: Any = self.tracking.mode
        if mode == "auto":
            mode = "online" if logged_in() else "offline"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=self.tracking.project,
            id=run_id,
            name=run_id,
            group=group,
            tags=list(tags),
            config=config,
            dir=str(self.folder),
            mode=mode,
            resume="allow" if mode == "online" and not self.fresh else None,
            reinit="finish_previous",
            settings=wandb.Settings(
                init_timeout=20,
                silent=True,
                console="off",
                x_disable_stats=True,
                x_save_requirements=False,  # the record has the versions; listing them again takes 0.2 s
            ),
        )
        self.where = self.run.url if mode == "online" else f"offline, {self.folder / 'wandb'}"

    def log(self, values: dict[str, float]) -> None:
        if self.run is not None:
            self._guard(lambda: self.run.log(values))

    def finish(self, record: Record) -> None:
        """Write the record's summary and close the W&B run, within a time limit: the record is what counts."""
        if self.run is not None:
            self._guard(self._finish_in_time, record)

    def _finish_in_time(self, record: Record) -> None:
        failures: list[BaseException] = []

        def finish() -> None:
            try:
                self._finish(record)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=finish, daemon=True)
        thread.start()
        thread.join(FINISH_S)
        if thread.is_alive():
            _end_service()
            raise TimeoutError(f"W&B did not finish within {FINISH_S:g} s")
        if failures:
            raise failures[0]

    def _finish(self, record: Record) -> None:
        import wandb  # noqa: PLC0415 - most runs of a sweep and all tables do without

        for moment, metrics in (("before", record.metrics_before), ("after", record.metrics)):
            self.run.summary.update({f"{moment}/{name}": value for name, value in metrics.items()})
        self.run.summary.update({"status": record.status, "trainable_parameters": record.trainable_parameters})
        self.run.summary.update({f"seconds/{phase}": cost.seconds for phase, cost in record.costs.items()})
        if record.ranks:
            self.run.log({"ranks": wandb.Histogram(list(record.ranks.values()))})
        self.run.finish(exit_code=0 if record.status == "ok" else 1)

    def _guard(self, action: Callable[..., object], *arguments: object) -> None:
        if self.broken:
            return
        try:
            action(*arguments)
        except (KeyboardInterrupt, Interrupted):  # of the person at the keyboard
            raise
        except BaseException as error:  # a mirror must never stop a run, whatever it raises: SystemExit too
            self.broken = True
            self.where = "failed, see the warning"
            reason = str(error).partition("\n")[0]
            warn(f"tracking is switched off for this run: {type(error).__name__}: {reason}")


def _end_service() -> None:
    """End W&B's own process, for which Python would otherwise wait when it ends; what it kept on disk stays."""
    for child in psutil.Process().children(recursive=True):
        if child.name().startswith("wandb"):
            child.kill()


def group_and_tags(spec: RunSpec, origins: Origins) -> tuple[str, list[str]]:
    """W&B group and tags of a run: its suite, if it belongs to one, scale, task and method."""
    scale, task, method, suite = spec.scale.name, spec.task.name, spec.method.name, origins.suite
    return f"{scale}/{suite or task}", [*([suite] if suite else []), scale, task, method]


def logged_in() -> bool:
    """Whether a key for W&B, or for one's own server of it, is configured here (environment or netrc); no network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    try:
        return netrc.netrc().authenticators(server or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
