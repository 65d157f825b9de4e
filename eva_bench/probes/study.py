"""Probes over many finished runs, as conf/probes.yaml lists them: `python -m eva_bench.probes study`.

A result that is there with the same settings is not made again, so that the command continues where it stopped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from eva_bench.probes import subjects
from eva_bench.probes.measure import PROBES, measure
from eva_bench.probes.result import ProbeResult, result_path
from eva_bench.records.record import Record
from eva_bench.records.store import Store
from eva_bench.settings.spec import PROTOCOL, private_settings
from eva_bench.system.arguments import Arguments, parse
from eva_bench.system.errors import UserError
from eva_bench.system.frozen import Frozen
from eva_bench.system.paths import CONF, runs_beside
from eva_bench.system.progress import say, warn

FILE = CONF / "probes.yaml"
BASELINE = "lora"


class Study(Frozen):
    """The content of conf/probes.yaml.

    Attributes:
        scale, tasks, methods: whose runs are looked at.
        seeds: of each method and task that are looked at; fewer give no answer.
        probes: the options of each probe as on its command line.
    """

    scale: str
    tasks: list[str]
    methods: list[str]
    seeds: int
    probes: dict[str, list[str]]


class Chosen(Arguments):
    """Which runs.

    Attributes:
        results_dir: where their records lie.
        file: a study of one's own in the place of conf/probes.yaml.
        private: also runs with settings of somebody's own.
    """

    results_dir: str = "results"
    file: str | None = None
    private: bool = False

    @property
    def study(self) -> Study:
        """The content of the file. Raises UserError."""
        return read_study(Path(self.file) if self.file else FILE)

    def runs(self) -> list[Record]:
        """The finished runs of the study: of this protocol, final, and of the first seeds of each method and task.

        Of a method, task and seed that ran again with other tuned values only the last one counts. A task with more
        seeds than the others gives no more, so that every seed of an answer has every task.

        Raises:
            UserError: there is none.
        """
        study = self.study
        found = [record for record in Store(self.results_dir).read_all() if _belongs(record, study, self.private)]
        if not found:
            raise UserError(f"No finished run in {self.results_dir} is one of {self.file or f'conf/{FILE.name}'}.")
        last = {_cell(record): record for record in sorted(found, key=lambda record: record.finished or "")}
        seeds: dict[tuple[str, str], set[int]] = defaultdict(set)
        for record in last.values():
            seeds[record.task, record.method].add(record.spec.seed)
        first = {cell: sorted(known)[: study.seeds] for cell, known in seeds.items()}
        kept = {r.run_id for r in last.values() if r.spec.seed in first[r.task, r.method]}
        return [record for record in found if record.run_id in kept]


class StudyArguments(Chosen):
    """What is done with them.

    Attributes:
        runs_dir: where runs left their weights.
        task, method: only these.
        dry_run: say what there is to do.
        force: make existing results again.
    """

    runs_dir: str | None = None
    task: str | None = None
    method: str | None = None
    dry_run: bool = False
    force: bool = False


def read_study(path: Path = FILE) -> Study:
    """The study of a file.

    Raises:
        UserError: there is no such file, it names no such probe, or is no study.
    """
    try:
        study = Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"There is no study '{path}'.") from error
    except (ValidationError, yaml.YAMLError) as error:
        raise UserError(f"{path.name} is not a study: {str(error).splitlines()[1].strip()}.") from error
    if unknown := sorted(set(study.probes) - set(PROBES)):
        raise UserError(f"{path.name}: unknown probe '{unknown[0]}'. Known: {', '.join(PROBES)}.")
    return study


def main(arguments: Sequence[str]) -> int:
    """Run the study; exit code 1 if a run could not be analysed.

    Raises:
        UserError: an unknown argument, or no finished run.
    """
    given = parse(StudyArguments, arguments)
    study = given.study
    chosen = [r for r in given.runs() if given.task in (None, r.task) and given.method in (None, r.method)]
    runs_dir = given.runs_dir or runs_beside(given.results_dir)
    groups = [(name, group) for name in study.probes for group in groups_of(name, chosen)]
    left = [item for item in groups if given.force or not _is_done(*item, study, given.results_dir)]
    say(f"{len(chosen)} runs, {len(groups)} results, {len(left)} of them to do")
    failed = 0
    for number, (name, group) in enumerate([] if given.dry_run else left, 1):
        try:
            found = [subjects.of_run(run, runs_dir) for run in group]
            path, result = measure(name, found, _options(name, study), given.results_dir)
            say(f"{number}/{len(left)} {name}, {result.seconds:.1f} s: {path}")
        except UserError as error:
            warn(str(error))
            failed += 1
    if failed:
        warn(f"{failed} of {len(left)} results are missing; the same command tries them again")
    return 1 if failed else 0


def _belongs(record: Record, study: Study, private: bool) -> bool:
    spec = record.spec
    current = record.status == "ok" and spec.protocol == PROTOCOL and spec.stage == "final"
    asked = record.scale == study.scale and record.task in study.tasks and record.method in study.methods
    return current and asked and (private or not private_settings(spec, record.origins))


def _cell(record: Record) -> tuple[str, str, int, frozenset[str]]:
    """What makes runs repetitions of each other: task, method, seed, and what somebody set differently."""
    own = private_settings(record.spec, record.origins)
    given = [item for item in record.origins.command_line if item.split("=")[0].lstrip("+~") in own]
    return record.task, record.method, record.spec.seed, frozenset(given)


def groups_of(probe: str, records: Sequence[Record]) -> list[list[str]]:
    """The ids that each result of a probe is about: one run; for connectivity, which compares, those of two kinds.

    All seeds of a method on a task; and every method beside LoRA, of one seed.
    """
    if probe != "connectivity":
        return [[record.run_id] for record in records]
    found: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for record in records:
        found[record.task, record.method].append((record.spec.seed, record.run_id))
    groups = [[run for _, run in sorted(runs)] for runs in found.values() if len(runs) > 1]
    for (task, method), runs in found.items():
        others = dict(found.get((task, BASELINE), [])) if method != BASELINE else {}
        groups += [[others[seed], run] for seed, run in sorted(runs) if seed in others]
    return groups


def _options(probe: str, study: Study) -> Arguments:
    return parse(PROBES[probe].Options, study.probes[probe])


def _is_done(probe: str, group: Sequence[str], study: Study, results_dir: str) -> bool:
    path = result_path(results_dir, probe, group)
    if not path.is_file():
        return False
    try:
        return ProbeResult.model_validate_json(path.read_text()).settings == _options(probe, study).model_dump()
    except ValidationError:
        return False
