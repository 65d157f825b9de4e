"""Learning rates as tables: a method's choice, optimum and plateau, the scores of its whole grid. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.rates import NEAR, Tuned, optima, optima_against
from eva_bench.reporting.statistics.rates import RESAMPLES, Interval
from eva_bench.reporting.tables.notes import origin
from eva_bench.reporting.tables.spec import read_table
from eva_bench.reporting.tables.table import Cell, Line, Table, full_title
from eva_bench.reporting.tables.tuning import tuned_families
from eva_bench.system.paths import CONF

GOAL = 0.1  # of the choices may move by more than one step when seeds are drawn again
NOTES = [
    "From stage=tune records: validation rows, seeds that the reported runs do not use. Chosen: the lowest mean "
    "logarithm of the validation loss (control: the highest success), then down as long as the next lower rate is "
    "within one standard error of it.",
    "Optimum: the lowest point of a parabola through the lowest loss and its neighbours over the logarithm of the "
    "rate, geometric mean over tasks and seeds, 95 % t interval from the deviation pooled over the methods of the "
    "family; so is the ratio to {baseline}'s, paired by task and seed.",
    f"Plateau: the rates of the grid around the best score at which the score stays within {100 * NEAR:g} points of "
    "it. Scores: validation, mean over tasks and seeds; a rate at which a run failed has none. Edge: the best or the "
    "chosen rate is an end of the grid, so that a wider one may be better.",
    "Moves: how often the same choice falls more than one step of the grid away when the seeds are drawn again with "
    f"replacement within every task ({RESAMPLES:,} times).",
]
HEADER = [
    *("method", "grid", "chosen", "optimum [95 %]", "times {baseline}'s [95 %]", "plateau", "best score", "score"),
    *("at half", "at twice", "moves", "edge"),
]


def build_rates(archive: Archive, scale: str) -> list[Table]:
    """A table of how stable choices are, and for every family its rates and its curves; none without tuning runs."""
    overall = read_table(CONF / "table" / "overall.yaml")
    families = tuned_families(archive.tuning, scale, overall.methods)
    found = [_family(scale, family, methods, overall.baseline) for family, methods in families.items()]
    found += [_curves(scale, family, methods) for family, methods in families.items()]
    return [_stability(scale, families), *found] if found else []


def _family(scale: str, family: str, methods: Mapping[str, Tuned], baseline: str) -> Table:
    best, against = optima(methods), optima_against(methods, baseline)
    lines = []
    for title, tuned in methods.items():
        curve, chosen = tuned.curve, tuned.curve.chosen
        cells = [
            Cell(f"{curve.rates[0]:g} to {curve.rates[-1]:g} ({len(curve.rates)})"),
            Cell(f"{chosen:g}", chosen),
            _interval(best[title]),
            _interval(against.get(title)),
            Cell(
                " to ".join(f"{rate:g}" for rate in dict.fromkeys(tuned.plateau)), tuned.plateau[1] / tuned.plateau[0]
            ),
            _score(max(tuned.scores.values())),
            *(_score(tuned.score(factor * chosen)) for factor in (1, 0.5, 2)),
            _share(curve.moved(), 0),
            Cell("edge" if curve.at_edge else ""),
        ]
        lines.append(Line(title, cells))
    header = [name.format(baseline=baseline) for name in HEADER]
    notes = [note.format(baseline=baseline) for note in NOTES]
    title = full_title(f"Learning rates, {family}", scale, None)
    return Table(f"rates_{family}", scale, None, title, header, lines, [*notes, _what(methods)])


def _curves(scale: str, family: str, methods: Mapping[str, Tuned]) -> Table:
    rates = sorted({rate for tuned in methods.values() for rate in tuned.curve.rates})
    lines = [Line(title, [_point(tuned, rate) for rate in rates]) for title, tuned in methods.items()]
    notes = ["Validation score in percent, in brackets what the choice is made by; bold: the chosen rate. " + NOTES[0]]
    title = full_title(f"Scores by learning rate, {family}", scale, None)
    header = ["method", *(f"{rate:g}" for rate in rates)]
    return Table(f"rates_{family}_curves", scale, None, title, header, lines, [*notes, _what(methods)])


def _stability(scale: str, families: Mapping[str, Mapping[str, Tuned]]) -> Table:
    lines = [_stable_line(family, list(methods.values())) for family, methods in families.items()]
    everything = [tuned for methods in families.values() for tuned in methods.values()]
    lines.append(_stable_line("all", everything))
    moved = [share for tuned in everything if (share := tuned.curve.moved()) is not None]
    notes = [
        f"{_verdict(moved)} Not judged, as they rest on one seed of a task: {len(everything) - len(moved)}.",
        NOTES[-1],
        origin([run for tuned in everything for run in tuned.runs]),
    ]
    header = ["family", "methods", "judged", "choices that move", "choices that ever move", "at the edge"]
    title = full_title("Learning rates: would other seeds choose others?", scale, None)
    return Table("rates", scale, None, title, header, lines, notes)


def _verdict(moved: Sequence[float]) -> str:
    if not moved:
        return "No choice rests on two seeds of every task."
    kept = "kept" if mean(moved) <= GOAL else "missed"
    found = f"{100 * mean(moved):.1f} % of the choices move by more than one step"
    return f"{found} (goal: at most {100 * GOAL:.0f} %, {kept})."


def _stable_line(name: str, found: Sequence[Tuned]) -> Line:
    moved = [share for tuned in found if (share := tuned.curve.moved()) is not None]
    counts = [len(found), len(moved), sum(map(bool, moved)), sum(tuned.curve.at_edge for tuned in found)]
    methods, judged, ever, edges = (Cell(str(count), count) for count in counts)
    return Line(name, [methods, judged, _share(mean(moved) if moved else None, 1), ever, edges])


def _share(share: float | None, digits: int) -> Cell:
    return Cell() if share is None else Cell(f"{100 * share:.{digits}f} %", share)


def _interval(found: Interval | None) -> Cell:
    if found is None:
        return Cell()
    middle, low, high = found
    return Cell(f"{middle:.2g}" + (f" [{low:.2g}, {high:.2g}]" if low is not None else ""), middle)


def _score(score: float | None) -> Cell:
    return Cell() if score is None else Cell(f"{100 * score:.1f}", score)


def _point(tuned: Tuned, rate: float) -> Cell:
    if rate not in tuned.curve.rates:
        return Cell()
    score, loss = tuned.scores.get(rate), tuned.curve.mean(rate)
    text = "failed" if score is None else f"{100 * score:.1f} ({loss:.2f})"
    return Cell(text, score, bold=rate == tuned.curve.chosen)


def _what(methods: Mapping[str, Tuned]) -> str:
    cells = {cell for tuned in methods.values() for cell in tuned.curve.cells}
    tasks, seeds = ({cell[i] for cell in cells} for i in (0, 1))
    runs = [run for tuned in methods.values() for run in tuned.runs]
    return f"Tasks {', '.join(sorted(tasks))}; seeds {', '.join(map(str, sorted(seeds)))}. {origin(runs)}"
