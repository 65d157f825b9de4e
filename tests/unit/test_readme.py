"""The README's numbers are those of the committed table, and the commands it names exist."""

import csv
import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_result_in_the_readme_is_in_the_table():
    with (ROOT / "results/tables/gsm8k-pocket-pocket_language.csv").open(encoding="utf-8", newline="") as file:
        table = {row["method"]: row for row in csv.DictReader(file)}
    shown = re.findall(r"^\| (\w+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", README, re.MULTILINE)
    shown = [row for row in shown if row[0] in table]
    assert {row[0] for row in shown} == set(table)
    for method, strict, loss, parameters in shown:
        row = table[method]
        assert (strict, loss, parameters) == (row["strict"], row["loss"], row["parameters"])


def test_every_make_target_and_link_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
