"""`make wandb-sync`: bring W&B in line with what happened here; offline runs later, or all runs from their records.

The records are the truth. Offline runs are sent as they are; `rebuild=true` makes every W&B run anew from its
record alone, for instance after the untracked folder runs/ is gone or for another project.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from eva_bench.records.record import Record
from eva_bench.records.store import Store
from eva_bench.records.wandb import Tracker, group_and_tags, logged_in
from eva_bench.settings.schema import TrackingSettings
from eva_bench.system.arguments import Arguments, run_command
from eva_bench.system.errors import UserError
from eva_bench.system.paths import runs_beside
from eva_bench.system.progress import say


def offline_runs(runs_dir: Path) -> list[Path]:
    """Folders of W&B runs that were kept here, the parts of one run in the order in which they were made."""
    return sorted(runs_dir.glob("*/wandb/offline-run-*"), key=lambda folder: (folder.parent.parent.name, folder.name))


def synchronise(runs_dir: Path) -> int:
    """Send offline runs; those that were sent before are skipped by W&B itself. Parts of one run stay one run."""
    folders = offline_runs(runs_dir)
    if not folders:
        say(f"nothing to send: no offline runs below {runs_dir}")
        return 0
    if not logged_in():
        raise UserError(f"Nobody is logged in to W&B here: `wandb login` first; {len(folders)} offline runs wait.")
    say(f"sending {len(folders)} offline runs of {len({folder.parent.parent for folder in folders})} cells")
    return subprocess.run([sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)]).returncode


def rebuild(records: Sequence[Record], runs_dir: Path, project: str, mode: Literal["auto", "online", "offline"]) -> int:
    """One W&B run per record, under its own id, with curve and summary; whatever W&B had under that id is replaced."""
    broken = 0
    for record in records:
        tracker = Tracker(TrackingSettings(mode=mode, project=project), runs_dir / record.run_id, fresh=True)
        tracker.start(record.run_id, record.spec.what(), *group_and_tags(record.spec, record.origins))
        for step, loss, norm, lr in record.curve:
            tracker.log({"train/loss": loss, "train/grad_norm": norm, "train/lr": lr, "train/step": step})
        tracker.finish(record)
        broken += tracker.broken
    say(f"{len(records) - broken} of {len(records)} W&B runs made from their records")
    return 1 if broken else 0


class SyncArguments(Arguments):
    """Send offline W&B runs; with rebuild=true make every W&B run anew from its record.

    make wandb-sync ARGS="rebuild=true"
    """

    runs_dir: Path | None = Field(None, description="where offline runs are; null: where these runs leave them")
    results_dir: Path = Field(Path("results"), description="where the records are")
    suite: str | None = Field(None, description="only the runs of this suite")
    project: str = Field("eva-bench", description="W&B project of the runs made anew")
    rebuild: bool = Field(False, description="make all runs from their records")
    mode: Literal["auto", "online", "offline"] = Field("auto", description="of the runs made anew")


def sync(arguments: SyncArguments) -> int:
    """Send or rebuild. Raises UserError."""
    runs_dir = arguments.runs_dir or Path(runs_beside(str(arguments.results_dir)))
    if not arguments.rebuild:
        return synchronise(runs_dir)
    if arguments.mode == "auto" and not logged_in():
        raise UserError(
            "Nobody is logged in to W&B here: `wandb login`, or mode=offline to keep the runs in runs/ first."
        )
    records = [r for r in Store(arguments.results_dir).read_all() if arguments.suite in (None, r.origins.suite)]
    return rebuild(records, runs_dir, arguments.project, arguments.mode)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.records.wandb_sync [rebuild=true] [suite=<name>] [project=...] ...`."""
    return run_command(sync, SyncArguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
