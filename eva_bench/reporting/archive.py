"""Records as reporting sees them: loaded once, found by scale, task and model. No torch here."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from eva_bench.records.record import Record
from eva_bench.records.store import Store
from eva_bench.settings.spec import fingerprint, private_settings
from eva_bench.system.errors import UserError
from eva_bench.system.progress import warn


class Run(Record):
    """A record with names for the settings that tables, figures and the page ask for.

    Attributes:
        probes: probe -> name -> what it measured on the run, over all layers.
    """

    probes: dict[str, dict[str, float | None]] = Field(default_factory=dict)

    @classmethod
    def of(cls, record: Record, probes: dict[str, dict[str, float | None]] | None = None) -> Run:
        """The same record, not validated again."""
        return cls.model_construct(**dict(record), probes=probes or {})

    @property
    def family(self) -> str:
        """Family of the task, such as `glue`."""
        return self.spec.task.family

    @property
    def primary(self) -> str:
        """Name of the metric that the task is judged by."""
        return self.spec.task.primary

    @property
    def stage(self) -> str:
        """`final` or `tune`."""
        return self.spec.stage

    @property
    def protocol(self) -> int:
        """Version of the measuring rules; runs of two versions are never compared."""
        return self.spec.protocol

    @property
    def model_name(self) -> str:
        """Name of the model's choice, such as `pocket_vision`."""
        return self.spec.model.name

    @property
    def model_kind(self) -> str:
        """`language`, `classifier`, `vision` or `decision`."""
        return self.spec.model.kind

    @property
    def checkpoint(self) -> str:
        """The model's checkpoint as its manifest names it."""
        return self.spec.identity.model.checkpoint

    @property
    def data_name(self) -> str:
        """The training data as its manifest names it."""
        return self.spec.identity.train_data.name

    @property
    def loss_on_prompt(self) -> bool:
        """Whether prompt tokens count in the loss."""
        return self.spec.train.loss_on_prompt

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        return self.spec.train.lr

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting but the seed, by dotted name; what is not set is left out."""
        return _flat({key: value for key, value in self.spec.what().items() if key != "seed"})

    def setting(self, dotted: str) -> Any:
        """A setting by its dotted name, such as `adapter.rank`; None where it is not set."""
        value: Any = self.spec
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
        return value

    @cached_property
    def settings_key(self) -> str:
        """Fingerprint of everything but the seed."""
        return fingerprint({key: value for key, value in self.spec.what().items() if key != "seed"})

    @property
    def command_line(self) -> list[str]:
        """The overrides that the run was started with."""
        return self.origins.command_line

    @property
    def private_overrides(self) -> set[str]:
        """Settings beyond the cell: a run that has any is a private experiment, not part of the benchmark."""
        return private_settings(self.spec, self.origins)


Probes = dict[str, dict[str, dict[str, float | None]]]  # run -> probe -> name -> number
Pretrainings = dict[str, dict[str, Any]]  # <way of matching>/<pair of pretrainings> -> name -> number or path


class Archive:
    """The records of one protocol a scale, by task: the one with most methods that have every task.

    Attributes:
        runs: all of them.
        tuning: runs that tried learning rates, of the newest protocol that has any: they come before results.
        older: by scale, how many records of other protocols are set aside.
        pretrainings: for every model with several pretrainings, what their pairs show.

    Raises:
        UserError: two records claim to be the same run.
    """

    def __init__(
        self, records: Iterable[Record], probes: Probes | None = None, pretrainings: Sequence[Pretrainings] = ()
    ):
        self.pretrainings = pretrainings
        everything = [Run.of(record, (probes or {}).get(record.run_id)) for record in records]
        by_scale: dict[str, list[Run]] = defaultdict(list)
        for run in everything:
            by_scale[run.scale].append(run)
        shown = {scale: _shown(runs) for scale, runs in by_scale.items()}
        self.runs = [run for run in everything if run.protocol == shown[run.scale]]
        tried = [run for run in everything if run.stage == "tune"]
        latest = {scale: max(run.protocol for run in tried if run.scale == scale) for scale in {r.scale for r in tried}}
        self.tuning = [run for run in tried if run.protocol == latest[run.scale]]
        self.older = Counter(run.scale for run in everything) - Counter(run.scale for run in self.runs)
        self._by_task: dict[tuple[str, str], list[Run]] = defaultdict(list)
        known = set()
        for run in self.runs:
            if run.run_id in known:
                raise UserError(
                    f"Two records claim to be the run '{run.run_id}': remove the copy from results/records."
                )
            known.add(run.run_id)
            self._by_task[run.scale, run.task].append(run)

    @classmethod
    def load(cls, results: Path) -> Archive:
        """Every readable record of a results folder and what probes say of it; others are reported and skipped."""
        return cls(Store(results).read_all(), *read_probes(results))

    def scales(self) -> list[str]:
        """All scales of the records, sorted."""
        return sorted({run.scale for run in self.runs})

    def scales_and_models(self) -> list[tuple[str, str]]:
        """All (scale, model) of the records, sorted."""
        return sorted({(run.scale, run.model_name) for run in self.runs})

    def of(self, scale: str, task: str, model: str | None, stage: str = "final") -> list[Run]:
        """Records of a stage of a task at a scale, of one model or (None) of any, whatever their status."""
        runs = self._by_task.get((scale, task), [])
        return [run for run in runs if run.stage == stage and model in (None, run.model_name)]


def read_probes(results: Path) -> tuple[Probes, list[Pretrainings]]:
    """What probes found on single runs, and on pretrainings: `<results>/probes/<probe>/*.json`.

    Unreadable files are reported.
    """
    found: Probes = defaultdict(dict)
    pretrainings: list[Pretrainings] = []
    for path in sorted((results / "probes").glob("*/*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            subjects, probe, summary = content["subjects"], content["probe"], dict(content["summary"])
            layers = dict(content["layers"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            warn(f"{path} is no result of a probe: {error}")
            continue
        if probe == "pretrainings":
            pretrainings.append(layers)
        elif len(subjects) == 1:
            found[subjects[0]][probe] = summary
    return found, pretrainings


def _shown(runs: list[Run]) -> int:
    """The protocol with most methods that have every task, of equals the newest; rates are chosen before any has one.

    First runs of a new protocol must not take the tables of the whole benchmark away.
    """
    finished = [run for run in runs if (run.stage, run.status) == ("final", "ok") and not run.private_overrides] or runs
    tasks: dict[tuple[int, str], set[str]] = defaultdict(set)  # of a protocol and method
    for run in finished:
        tasks[run.protocol, run.method].add(run.task)
    every = {run.task for run in finished}
    complete = Counter(protocol for (protocol, _), found in tasks.items() if found == every)
    return max({run.protocol for run in finished}, key=lambda protocol: (complete[protocol], protocol))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'train': {'lr': 1}} -> {'train.lr': 1}; values that are not set are left out."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found
