"""Tables as files: Markdown, LaTeX, CSV and JSON say the same, and `make tables` writes them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from eva_bench.records.store import Store
from eva_bench.reporting.tables import main
from eva_bench.reporting.tables.formats import latex, to_csv, to_latex, to_markdown, to_numbers
from eva_bench.reporting.tables.published import published_numbers
from eva_bench.reporting.tables.spec import read_tables
from eva_bench.system.errors import UserError
from tests.conftest import CONF, ROOT
from tests.records import record
from tests.unit.test_tables import GSM8K, table


def test_a_published_number_that_is_not_in_the_csv_is_an_error():
    block = GSM8K.published[0].model_copy(update={"methods": {"lora": "LoRRA"}})
    with pytest.raises(UserError, match=r"eva.csv has no row for lora"):
        table([record("lora", 0, 0.5)], GSM8K.model_copy(update={"published": [block]}))


def test_order_of_records_does_not_matter_and_all_formats_agree():
    records = [record(method, seed, 0.3 + seed / 10) for method in ("lora", "pissa") for seed in range(3)]
    first, second = table(records), table(records[::-1])
    assert to_markdown(first) == to_markdown(second) and to_latex(first) == to_latex(second)
    assert to_csv(first).count("40.0 ± 10.0") == to_markdown(first).count("40.0 ± 10.0") >= 2
    assert r"40.0 $\pm$ 10.0" in to_latex(first) and "±" not in to_latex(first).split(r"\bottomrule")[0]
    assert r"\evabenchcell{gsm8k-pocket-pocket_language/pissa/strict}{40.0 $\pm$ 10.0}" in to_numbers([first])


def test_markup_in_names_is_shown_not_obeyed():
    spec = GSM8K.model_copy(
        update={"columns": [GSM8K.columns[0].model_copy(update={"title": r"a|b <b>$x_1$</b> \input{c} 5%"})]}
    )
    built = table([record("lora", 0, 0.5)], spec)
    assert r"a\|b &lt;b>$x_1$&lt;/b>" in to_markdown(built)
    assert r"\$x\_1\$" in to_latex(built) and r"\textbackslash{}input\{c\} 5\%" in to_latex(built)
    assert not re.search(
        r"[%#$\\{}]", to_numbers([built]).splitlines()[-1].split("}{")[0].removeprefix(r"\evabenchcell{")
    )


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX here")
def test_latex_accepts_every_committed_table_and_every_number(tmp_path):
    tables = sorted((ROOT / "results/tables").glob("*-*.tex"))
    cells = re.findall(r"^\\evabenchcell\{([^}]*)\}", (ROOT / "results/tables/numbers.tex").read_text(), re.MULTILINE)
    assert len(tables) > 10 and len(cells) > 100
    lines = [
        r"\documentclass{article}\usepackage{booktabs}",
        rf"\input{{{ROOT}/results/tables/numbers.tex}}",
        r"\begin{document}",
    ]
    lines += (
        [rf"\input{{{path}}}" for path in tables] + [rf"\evabench{{{cell}}}" for cell in cells] + [r"\end{document}"]
    )
    (tmp_path / "all.tex").write_text("\n\n".join(lines))
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "all.tex"], cwd=tmp_path, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-1500:]


def test_a_minus_in_latex_is_no_hyphen():
    assert latex("-4.1 ± 7.5 (-0.3)") == r"$-$4.1 $\pm$ 7.5 ($-$0.3)" and latex("1.5-2, olora-5") == "1.5-2, olora-5"


def names_in(folder: str) -> set[str]:
    return {str(path.relative_to(CONF / folder).with_suffix("")) for path in (CONF / folder).rglob("*.yaml")}


def test_every_table_of_the_suite_is_well_formed_and_its_published_numbers_exist():
    tables = read_tables()
    assert {"gsm8k"} <= {spec.name for spec in tables}
    for spec in tables:
        names = {column.name_in_papers for column in (*spec.columns, *spec.means)}
        for block in spec.published:
            assert {name for _, name in published_numbers(block)} & names, (spec.name, block.title)
        assert set(spec.methods) <= names_in("method"), spec.name
        assert set(spec.tasks) <= names_in("task"), spec.name


def test_make_tables_writes_every_format_twice_the_same_without_torch(tmp_path):
    store = Store(tmp_path)
    store.check_writable()
    for seed in range(2):
        store.write(record("lora", seed, 0.5))
    (store.records / "broken.json").write_text('{"schema_version": 1, "run_id"')
    (store.records / "foreign.json").write_text("[1, 2]")
    old = {"schema_version": 0}
    (store.records / "old.json").write_text(json.dumps(old))
    stale = tmp_path / "tables" / "gone.md"
    stale.parent.mkdir()
    stale.write_text("a table that no longer exists")
    code = (
        "import sys; from eva_bench.reporting.tables import main; code = main(sys.argv[1:]); "
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    command = [sys.executable, "-c", code, f"results_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("broken", "foreign", "old"):
        assert f"{name}.json is not a readable record" in done.stderr
    written = {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    assert (
        {name.rpartition(".")[2] for name in written} == {"md", "csv", "tex"}
        and "numbers.tex" in written
        and "gone.md" not in written
    )
    assert main([f"results_dir={tmp_path}"]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()} == written


def test_no_records_at_all_is_no_error(tmp_path, capsys):
    assert main([f"results_dir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "no tables" in said and f"task=gsm8k results_dir={tmp_path} makes one" in said
