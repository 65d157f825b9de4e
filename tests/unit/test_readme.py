"""Numbers in README and pages are those of the committed tables; the places and commands it names exist."""

import csv
import itertools
import re
import subprocess
import tomllib

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLES = {"pocket": ("overall", "pocket", "All"), "small": ("glue_small", "small-minilm_l6", "Average")}
SMALL = "glue_small-agreement-pocket-small", "glue_small-differences-small-minilm_l6", "rates_glue-small"


def rows_of_readme(scale: str) -> list[dict[str, str]]:
    """The results table of a scale: every row by the titles of the columns."""
    section = README[README.index(f"## Results at {scale} scale") :].splitlines()
    lines = [line.strip("| \n").split(" | ") if line.startswith("| ") else None for line in section]
    start = next(i for i, line in enumerate(lines) if line and line[0] == "method")
    rows = itertools.takewhile(lambda line: line is not None, lines[start + 2 :])
    return [dict(zip(lines[start], row, strict=True)) for row in rows]


@pytest.mark.parametrize("scale", TABLES)
def test_every_result_in_the_readme_is_in_the_tables(scale):
    name, where, mean = TABLES[scale]
    scores, statistics = (table_of(kind, where) for kind in (name, f"{name}-statistics"))
    measured = {method for method, row in scores.items() if row[mean] != "–"}
    shown = rows_of_readme(scale)
    assert {row["method"] for row in shown} == measured and len(shown) == len(measured)
    assert shown[0].keys() <= scores["lora"].keys() | statistics["lora"].keys()
    for row in shown:
        known = scores[row["method"]] | statistics.get(row["method"], {})
        for title, value in row.items():
            short, whole = (re.split(end, known.get(title, "–"))[0] for end in (r" ±| \(", r" \("))
            assert value == (whole if "±" in value else short), (row["method"], title)


def test_every_interval_in_the_readme_is_in_the_statistics():
    results = README[README.index("**What it shows**") : README.index("**What it does not show.**")]
    intervals = re.findall(r"[-+]\d+\.\d \[[^]]+\]", " ".join(results.split()))
    names = ("overall", "controls", "further", "short", "long")
    tables = [table_of(f"{name}-statistics") for name in names]
    known = {row["difference to lora [95 %]"] for table in tables for row in table.values()}
    assert len(intervals) >= 4 and set(intervals) <= known
    correlations, claims = re.findall(r"-?0\.\d\d \[[^]]+\]", results), (ROOT / "docs/claims.md").read_text()
    assert correlations and all(found in claims for found in correlations)


def test_the_further_methods_that_the_readme_calls_behind_are_those_that_differ():
    bullet = " ".join(README[README.index("* **None of ") : README.index("* **The learning rate matters")].split())
    further, main = table_of("further-statistics"), table_of("overall-statistics")
    rows = [row for method, row in further.items() if method not in main]
    behind = {row["difference to lora [95 %]"] for row in rows if row["verdict"].startswith("different")}
    assert set(re.findall(r"-\d+\.\d \[[^]]+\]", bullet)) == behind and bullet.startswith(f"* **None of {len(rows)} ")
    scores = {method: row["GSM8K"].split(" ")[0] for method, row in table_of("further").items()}
    best = max((score for score in scores.values() if score != "–"), key=float)
    assert f"(89.7, LoRA {scores['lora']})" in bullet and scores["lora_ga"] == best == "89.7"


def test_what_the_readme_says_of_longer_training_are_the_committed_tables():
    section = README[README.index("* **Longer training") : README.index("**What it does not show.**")]
    tables = [table_of(f"{name}-statistics") for name in ("short", "long")]
    wanted = [table[method]["difference to lora [95 %]"] for table in tables for method in ("eva", "pissa")]
    assert re.findall(r"[-+]\d+\.\d \[[^]]+\]", " ".join(section.split())) == wanted
    assert {row["tasks"] for table in tables for row in table.values()} == {"5"}


def test_every_interval_of_the_small_scale_is_in_its_tables():
    section = README[README.index("## Results at small scale") : README.index("## More results")]
    section = " ".join(section.split())
    tables = {name: (ROOT / f"results/tables/{name}.md").read_text(encoding="utf-8") for name in SMALL}
    shown = re.findall(r"[-+]?\d+(?:\.\d+)? \[[^]]+\]", section)
    assert len(shown) >= 9 and all(any(found in text for text in tables.values()) for found in shown)
    mean = re.search(r"mean of 5 tasks \| \**([^|*]+\])", tables[SMALL[0]])
    assert mean and mean[1] in shown


def test_two_tables_give_one_mean_over_all_families():
    scores, statistics = (table_of(name) for name in ("overall", "overall-statistics"))
    assert all(scores[method]["All"].split(" ±")[0] == row["mean"] for method, row in statistics.items())


def table_of(name: str, where: str = "pocket") -> dict[str, dict[str, str]]:
    """A committed table: method -> title of the column, without what stands in brackets -> value."""
    with (ROOT / f"results/tables/{name}-{where}.csv").open(encoding="utf-8", newline="") as file:
        rows = [{title.split(" (")[0]: value for title, value in row.items()} for row in csv.DictReader(file)]
    return {row["method"]: row for row in rows}


def test_the_ablation_on_evas_page_is_the_committed_table():
    page = (ROOT / "docs/methods/eva.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `(\w+)`[^|]*\| ([\d.]+) \| ([\d.]+) \| ([^|]+) \|$", page, re.MULTILINE)
    with (ROOT / "results/tables/ablation-pocket-pocket_language.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    measured = [row for row in rows if row["seeds"] not in ("–", "0")]
    six = {name: row["difference to lora [95 %]"] for name, row in table_of("controls-statistics").items()}
    table = {r["method"]: (r["loss"].split(" ")[0], r["strict"].split(" ")[0], six[r["method"]]) for r in measured}
    assert {name for name, *_ in shown} == table.keys()
    assert {name: tuple(values) for name, *values in shown} == {name: table[name] for name, *_ in shown}


def test_the_controls_on_evas_page_are_the_committed_tables():
    page = (ROOT / "docs/methods/eva.md").read_text(encoding="utf-8")
    begin, end = page.index("## What its parts do"), page.index("## Without the suite")
    section = " ".join(page[page.index("**Is it the size") : end].split())
    differences = {name: row["difference to lora [95 %]"] for name, row in table_of("controls-statistics").items()}
    shown = dict(re.findall(r"\| `(\w+)` \| [^|]+ \| ([^|]+?) \|", section))
    ablation = set(re.findall(r"^\| `(\w+)`[^|]*\| [\d.]+ \| [\d.]+ \|", page, re.MULTILINE))
    assert shown.items() <= differences.items() and shown.keys() | ablation == differences.keys()
    single = {value for row in table_of("controls-differences").values() for value in row.values()}
    named = set(re.findall(r"\(([-+][^)]+\])\)", " ".join(page[begin:end].split())))
    assert len(named) >= 6 and named <= single
    rows = table_of("controls-statistics").items()
    assert {name for name, row in rows if not row["verdict"].startswith(("undecided", "–"))} == {"eva_whiten"}
    pairs = table_of("controls-pairs")
    apart = {frozenset((a, b)) for a, row in pairs.items() for b, text in row.items() if " different" in text}
    assert "Of the 78 pairs of the other starts four differ" in " ".join(page.split())
    assert len([pair for pair in apart if "eva_whiten" not in pair]) == 4 and len(pairs) == 14


def test_the_matched_budgets_of_the_pages_are_the_committed_table():
    scores = {name: row["strict"].split(" ")[0] for name, row in table_of("matched", "pocket-pocket_language").items()}
    protocol, page = (" ".join((ROOT / f"docs/{name}.md").read_text().split()) for name in ("protocol", "methods/mica"))
    adalora = f"({scores['adalora, rank 5']} at rank 5, {scores['adalora']} at rank 8, LoRA {scores['lora']})"
    assert adalora in protocol and f"({scores['mica, rank 21']} at rank 21, {scores['mica']} at rank 8)" in protocol
    assert f"exact match is {scores['mica']} at rank 8 and {scores['mica, rank 21']} at rank 21" in page


def test_the_first_screen_says_what_is_needed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first = README[: README.index("make run")]
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in first and "GB of disk" in first


def test_every_make_target_and_link_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_file_tree_has_every_folder_and_every_room():
    tree = README[README.index("\nrun.py  ") : README.index("## Read on")]
    named = {indent: set(re.findall(rf"^{' ' * indent}([\w.]+)/?  ", tree, re.MULTILINE)) for indent in (0, 2)}
    assert all((ROOT / name).exists() for name in named[0])
    assert all((ROOT / "eva_bench" / name).exists() for name in named[2])
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [line.split("/") for line in listed.splitlines()]
    assert {path[0] for path in files if len(path) > 1 and not path[0].startswith(".")} <= named[0]
    assert {path[1] for path in files if path[0] == "eva_bench"} - {"__init__.py"} <= named[2]


def test_every_path_that_the_readme_names_exists():
    named = re.findall(r"`((?:baselines|conf|docs|eva_bench|pocket|tasks|tests|results)/[\w./<>]*)`", README)
    assert len(named) > 10
    for path in named:
        if path != "results/report/index.html":  # made by `make report`, not in git
            pattern = re.sub(r"<\w+>", "*", path)
            assert next(ROOT.glob(pattern.rstrip("/")), None), path


def test_the_layers_in_contributing_are_those_that_lint_holds():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    held = [re.sub(r"eva_bench\.", "", layer).replace(" | ", ", ") for layer in layers]
    order = " > ".join(f"({layer})" if "," in layer else layer for layer in held)
    assert order in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
