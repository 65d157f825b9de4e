"""`make wandb-sync`: bring W&B in line with what happened here; offline runs later, or all runs from their records.

The records are the truth. Offline runs are sent as they are; `rebuild=true` makes every W&B run anew from its
record alone, for instance after the untracked folder runs/ is gone or for another project.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from eva_bench.records.record import Record
from eva_bench.records.store import Store
from eva_bench.records.wandb import Tracker, group_and_tags, logged_in
from eva_bench.settings.schema import TrackingSettings
from eva_bench.system.errors import UserError
from eva_bench.system.progress import say

SETTINGS = {"runs_dir": "runs", "results_dir": "results", "suite": "", "project": "eva-bench", "rebuild": "false", "mode": "auto"}


def offline_runs(runs_dir: Path) -> list[Path]:
    """Folders of W&B runs that were kept here, the parts of one run in the order in which they were made."""
    return sorted(runs_dir.glob("*/wandb/offline-run-*"), key=lambda folder: (folder.parent.parent.name, folder.name))


def synchronise(runs_dir: Path) -> int:
    """Send offline runs; those that were sent before are skipped by W&B itself. Parts of one run stay one run."""
    folders = offline_runs(runs_dir)
    if not folders:
        say(f"nothing to send: no offline runs below {runs_dir}")
        return 0
    say(f"sending {len(folders)} offline runs of {len({folder.parent.parent for folder in folders})} cells")
    return subprocess.run([sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)]).returncode


def rebuild(records: Sequence[Record], runs_dir: Path, project: str, mode: str) -> int:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m eva_bench.records.wandb_sync [rebuild=true] [suite=<name>] [project=...] [runs_dir=...] [results_dir=...]`."""
    try:
        given = dict(item.split("=", 1) for item in (sys.argv[1:] if arguments is None else arguments))
        if unknown := set(given) - set(SETTINGS):
            raise UserError(f"Unknown setting '{sorted(unknown)[0]}'. Known: {', '.join(SETTINGS)}.")
        wanted = SETTINGS | given
        runs_dir = Path(wanted["runs_dir"])
        if wanted["rebuild"].lower() != "true":
            return synchronise(runs_dir)
        if wanted["mode"] == "auto" and not logged_in():
            raise UserError("Nobody is logged in to W&B here: `wandb login`, or mode=offline to keep the runs in runs/ first.")
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    records = [r for r in Store(wanted["results_dir"]).read_all() if not wanted["suite"] or r.origins.suite == wanted["suite"]]
    return rebuild(records, runs_dir, wanted["project"], wanted["mode"])


if __name__ == "__main__":
    sys.exit(main())
