"""Several processes of one job (torchrun): the main one decides whether a cell is run, the others do as it says."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any

from eva_bench.system.processes import distributed, is_main_process

FOR_EVER = timedelta(days=365)  # the main process may wait for another job's run
GOODBYE = timedelta(seconds=60)
_asked: Counter[str] = Counter()


class Decision:
    """What the main process tells the others about a cell."""

    def __init__(self, run_id: str):
        self.key, self.told = _key(run_id), False

    def run(self) -> None:
        """All processes run the cell."""
        self._tell("run")

    def leave(self) -> None:
        """No process runs it; returns when all know, because this process may hold the only store."""
        self._tell("leave")
        if distributed():
            others = [f"{self.key}/{rank}" for rank in range(1, int(os.environ["WORLD_SIZE"]))]
            with suppress(Exception):  # one of them is gone: nothing to wait for
                _store().wait(others, GOODBYE)

    def _tell(self, what: str) -> None:
        self.told = True
        if distributed():
            _store().set(self.key, what)


@contextmanager
def deciding(run_id: str) -> Iterator[Decision]:
    """In the main process: whatever leaves the block without a decision to run is a decision to leave."""
    decision = Decision(run_id)
    try:
        yield decision
    finally:
        if not decision.told:
            decision.leave()


def told_to_run(run_id: str) -> bool:
    """In the other processes: wait for the main one's decision."""
    key, store = _key(run_id), _store()
    store.wait([key], FOR_EVER)
    wanted = store.get(key) == b"run"
    store.set(f"{key}/{os.environ['RANK']}", "seen")
    return wanted


def cells_of_main(run_ids: Sequence[str]) -> set[str]:
    """The cells of a sweep that the main process wants to run: records may appear while the others look."""
    if not distributed():
        return set(run_ids)
    key, store = _key("sweep"), _store()
    if not is_main_process():
        store.wait([key], FOR_EVER)
        return set(json.loads(store.get(key)))
    store.set(key, json.dumps(list(run_ids)))
    return set(run_ids)


def _key(run_id: str) -> str:
    """Every process counts how often it came to this cell; torchrun keeps its store when it restarts them."""
    _asked[run_id] += 1
    return f"eva-bench/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{run_id}/{_asked[run_id]}"


@cache
def _store() -> Any:
    from torch.distributed.rendezvous import rendezvous  # noqa: PLC0415 - a cell that is done needs no torch

    store, _, _ = next(iter(rendezvous("env://", timeout=FOR_EVER)))
    return store
