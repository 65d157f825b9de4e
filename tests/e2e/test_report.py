"""The report page in a real browser: opens from disk, compares, filters, shows a run, keeps markup as text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import axe_core_python
import pytest

from eva_bench.records.store import Store
from eva_bench.reporting.page import main
from tests.records import record
from tests.report_page import VIEWS, after, choose, go, texts

MARKUP = "</script><img src=x onerror=\"document.title='broken'\"> \\frac{1}{2} $x_1$ & <b>bold</b>"
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of 150 runs, one of them failed, one with samples full of markup."""
    folder = tmp_path_factory.mktemp("report")
    store = Store(folder / "results")
    store.check_writable()
    methods = {"lora": 0.5, "eva": 0.7, "pissa": 0.6, "lora_orthonormal": 0.51}
    records = [record(method, seed, score + seed / 100) for method, score in methods.items() for seed in range(3)]
    for each in records:
        each.metrics.update({"forgetting/loss": 2.0 if each.method == "eva" else 1.5})
        each.metrics_before.update({"forgetting/loss": 1.0})
    for method, best in (("lora", 0.01), ("eva", 0.02)):
        for rate in (0.005, 0.01, 0.02):
            line = {"command_line": [f"method={method}", f"train.lr={rate}"]}
            spec = {"stage": "tune", "train": {"lr": rate}}
            run_id = f"tune-{method}-{rate}"
            score = 0.8 if rate == best else 0.3
            records.append(record(method, 100, score, spec=spec, origins=line, run_id=run_id, train_id=run_id))
    records += [record("olora", 100 + i, i / 200, spec={"stage": "tune"}) for i in range(131)]
    records.append(record("svfit", 0, 0.0, status="failed", error=f"{MARKUP} at step 3", metrics={"nan": float("nan")}))
    for each in records:
        store.write(each)
    run = folder / "runs" / records[0].run_id
    run.mkdir(parents=True)
    samples = [
        {"row": 0, "prompt": MARKUP, "response": "x" * 5000, "prompt_sha256": "secret"},
        {"row": 1, "prompt": "second"},
    ]
    (run / "samples.jsonl").write_text("\n".join(json.dumps(sample) for sample in samples) + '\n{"row": 2, "half')
    assert main([f"results_dir={folder / 'results'}", f"runs_dir={folder / 'runs'}"]) == 0
    return folder / "results/report/index.html", records


@pytest.fixture(scope="module")
def browser(page, opened):
    return opened(page[0])


def test_it_opens_from_disk_without_complaints_and_asks_for_nothing_else(browser, page):
    for view in VIEWS:
        go(browser, f"view={view}&family=all")
        assert texts(browser, "nav a[aria-current]"), view
    assert browser.complaints == []
    assert [address for address in browser.requests if not address.startswith("data:")] == [page[0].as_uri()]
    assert texts(browser, ".facts li")[:2] == ["150 records", "149 finished"]


def test_the_first_screen_says_what_is_settled_with_intervals_and_ties(browser):
    go(browser, "view=overview&scale=pocket")
    (verdict,) = texts(browser, ".verdict")
    assert verdict.startswith("Scale pocket: eva and pissa are above lora") and "svfit" in verdict
    rows = dict(zip(texts(browser, "#view tbody th"), texts(browser, "#view tbody td:nth-child(3)"), strict=True))
    assert rows["lora"] == "baseline" and re.fullmatch(r"\+2\d\.\d \[\+1\d\.\d, \+2\d\.\d\]", rows["eva"])
    assert "lora_orthonormal, lora" in texts(browser, "#view li")
    assert browser.run("document.querySelector('#view svg').getAttribute('aria-label')").startswith(
        "Differences to lora"
    )


def test_a_column_sorts_both_ways_with_missing_values_last_and_published_lines_in_place(browser):
    go(browser, "view=tables&table=math-pocket-pocket_language")
    head = "document.querySelectorAll('#view thead button')[1]"
    after(browser, f"{head}.click()")
    assert browser.run(f"{head}.parentNode.getAttribute('aria-sort')") == "descending"
    rows = "#view tbody:not(.published) th"
    assert texts(browser, rows)[:4] == ["eva", "pissa", "lora_orthonormal", "lora"]
    after(browser, f"{head}.click()")
    assert texts(browser, rows)[:3] == ["untrained", "svfit", "lora"] and len(texts(browser, rows)) == 10
    assert texts(browser, "#view tbody.published th")[0] == "Llama-2-7B (EVA T8): LoRA"
    assert "not run" in texts(browser, "#view td.missing")


def test_sorting_survives_filtering_and_both_are_in_the_address(browser, page):
    go(browser, "view=tables&table=gsm8k-pocket-pocket_language&sort=strict:down")
    after(browser, "[...document.querySelectorAll('fieldset input')].find(e => e.value === 'lora').click()")
    assert texts(browser, "#view tbody th") == ["lora", "untrained"]  # exactly lora, not lora_orthonormal
    after(browser, "[...document.querySelectorAll('fieldset input')].find(e => e.value === 'eva').click()")
    assert texts(browser, "#view tbody th") == ["eva", "lora", "untrained"]
    after(browser, "[...document.querySelectorAll('fieldset input')].find(e => e.value === 'loss').click()")
    assert texts(browser, "#view thead th") == ["method", "loss"]
    address = browser.run("location.hash.slice(1)")
    go(browser, "view=overview")
    go(browser, address)
    assert texts(browser, "#view tbody th") == ["eva", "lora", "untrained"] and texts(browser, "#view thead th")[
        1:
    ] == ["loss"]


def test_only_rows_without_gaps(browser):
    go(browser, "view=tables&table=math-pocket-pocket_language&complete=yes")
    assert set(texts(browser, "#view tbody:not(.published) th")) <= {"untrained"}  # nobody has MATH


def test_sorting_works_with_the_keyboard_alone(browser):
    go(browser, "view=tables&table=gsm8k-pocket-pocket_language")
    browser.run("document.querySelector('#view thead button').focus()")
    browser.press("Tab", 9)
    before = browser.run("document.body.dataset.ready")
    browser.press("Enter", 13)
    browser.wait(f"document.body.dataset.ready !== '{before}'")
    assert browser.run("document.activeElement.textContent") == "strict"
    assert texts(browser, "#view tbody th")[0] == "eva"


def test_two_methods_are_compared_task_by_task_and_a_score_opens_its_runs(browser):
    go(browser, "view=compare")
    choose(browser, "a", "pissa")
    choose(browser, "b", "lora")
    assert texts(browser, ".verdict")[0].startswith("pissa minus lora, all families alike: +1")
    # Pooled deviation of a point (svfit's one run has none), 8 degrees of freedom: half 2.306 * sqrt(2/3) = 1.9.
    assert texts(browser, "#view tbody tr:first-child td")[2] == "+10.0 [+8.1, +11.9]"
    assert texts(browser, "#view .copyable code")[0] == "python run.py method=pissa task=gsm8k"
    assert 'init_lora_weights="pissa"' in texts(browser, "#view .copyable code")[1]
    link = browser.run("document.querySelector('#view tbody td a').getAttribute('href').slice(1)")
    go(browser, link)
    assert texts(browser, "#run-count") == ["3 of 3 shown"]


def test_trade_offs_and_rates_take_their_axes_and_families(browser):
    go(browser, "view=tradeoffs&x=training%20s&y=trained%20parameters")
    assert "eva 11, 1,000" in browser.run("document.querySelector('#view svg').getAttribute('aria-label')")
    go(browser, "view=tradeoffs")  # forgetting is what one asks first, where it was measured
    assert "eva 0.6931, 71" in browser.run("document.querySelector('#view svg').getAttribute('aria-label')")
    assert "intruder dimensions" not in texts(browser, "select[name=x] option")  # nobody measured them
    go(browser, "view=rates&family=math")
    rows = {
        row[0]: list(row[1:])
        for row in zip(*[iter(texts(browser, "#view tbody th, #view tbody td"))] * 10, strict=True)
    }
    assert rows["lora"][:4] == ["0.01", "80.0", "30.0", "30.0"] and rows["lora"][7] == "baseline"
    assert rows["eva"][:4] == ["0.02", "80.0", "30.0", "not run"] and rows["eva"][8] == "one seed"
    assert "a wider grid may be better: eva." in texts(browser, ".warning")[0]


def test_the_list_of_runs_is_filtered_by_field_and_sorted(browser):
    go(browser, "view=runs")
    assert len(texts(browser, "#view tbody tr")) == 100
    after(browser, "[...document.querySelectorAll('#view button')].find(b => b.textContent === 'Show more').click()")
    assert len(texts(browser, "#view tbody tr")) == 150
    choose(browser, "method", "lora")
    choose(browser, "stage", "final")
    assert texts(browser, "#run-count") == ["3 of 3 shown"]  # lora_orthonormal is another method
    after(browser, "[...document.querySelectorAll('#view thead button')].find(b => b.textContent === 'score').click()")
    assert texts(browser, "#view tbody tr td:nth-child(10)") == ["0.52", "0.51", "0.5"]


def test_a_run_opens_with_curves_origin_and_samples_whose_markup_stays_text(browser, page):
    stored = sorted(page[1], key=lambda run: run.run_id)
    columns = browser.run("block('data').then(data => data.runs.rows.map(row => row[0]))")
    go(browser, f"view=runs&run={columns.index(page[1][0].run_id)}")
    assert browser.run("document.activeElement.id") == "run-title"
    assert texts(browser, "#run-title") == ["lora on gsm8k, seed 0"] and len(stored) == len(columns)
    assert browser.run("document.querySelectorAll('#view .curves svg').length") == 2
    shown = texts(browser, "#view")[0]
    assert MARKUP in shown and "second" in shown and "x" * 600 + " …" in shown
    assert "secret" not in shown and "half" not in shown
    assert "python run.py method=lora task=gsm8k seed=0" in shown and "a" * 40 in shown and "train.lr" in shown
    go(browser, f"view=runs&run={columns.index(page[1][-1].run_id)}")
    assert "Status: failed. " + MARKUP in texts(browser, "#view p")[0] and "nan" in texts(browser, "#view")[0]
    assert browser.run("document.title") == "eva-bench: report" and browser.complaints == []


def test_what_is_shown_can_be_taken_away(browser):
    go(browser, "view=tables&table=gsm8k-pocket-pocket_language&methods=eva")
    browser.run("window.saved = []; save = (name, content, type) => window.saved.push([name, content, type]); 1")
    browser.run("document.querySelectorAll('#view .tools button').forEach(b => b.click())")
    (csv_name, table, _), (tex_name, latex, _) = browser.run("window.saved")
    assert csv_name.endswith(".csv") and '"eva","71.0 ± 1.0"' in table and "pissa" not in table
    assert tex_name.endswith(".tex") and latex.startswith(r"\begin{tabular}")
    go(browser, "view=compare&a=eva&b=lora")
    browser.run("document.querySelector('#view figure .tools button').click()")
    name, picture, kind = browser.run("window.saved.at(-1)")
    assert name == "eva-minus-lora-pocket.svg" and picture.startswith("<svg") and kind == "image/svg+xml"


def test_figures_and_claims_and_what_was_not_run(browser):
    go(browser, "view=figures")
    browser.wait(
        "document.images.length > 3 && [...document.images].every(image => "
        "{ image.scrollIntoView(); return image.complete && image.naturalWidth > 100; })"
    )
    go(browser, "view=claims")
    assert len(texts(browser, ".claim")) == 21 and texts(browser, "#view h3")[-1] == "Not run"
    decided = [text.split(".")[0] for text in texts(browser, "h3:first-of-type ~ .claim summary b")]
    assert decided[0] == "4" and sorted(decided, key=int) == [str(number) for number in range(1, 22)]
    go(browser, "view=probes")
    assert "forgetting, scale pocket" in texts(browser, "#view h3")
    assert (
        dict(zip(texts(browser, "#view tbody th"), texts(browser, "#view td:nth-child(4)"), strict=True))["eva"]
        == "0.6931"
    )
    go(browser, "view=missing")
    shown = texts(browser, "#view")[0]
    assert "Nothing has been run at scale lite, paper" in shown and "Meta-World CW10 (metaworld)" in shown
    assert re.search(r"GSM8K, scale=pocket, pocket_language: no runs of full, ", shown) and "failed, " in shown


def test_nothing_is_wider_than_a_phone_in_light_and_dark(browser):
    browser.resize(390, 844)
    for dark in ("dark", "light"):
        browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": dark}])
        for view in VIEWS:
            go(browser, f"view={view}&try={dark}")
            assert browser.run("document.documentElement.scrollWidth") <= 390, view
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.resize(1200, 900)


def test_axe_finds_nothing_serious_in_light_and_dark(browser, page):
    browser.run(f"{AXE}; 1")
    serious = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations
        .filter(each => ['serious', 'critical'].includes(each.impact))
        .map(each => each.id + ': ' + each.nodes[0].html.slice(0, 200)))"""
    for dark in ("dark", "light"):
        browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": dark}])
        for view in (*VIEWS, "runs&run=0") if dark == "light" else ("overview", "tables", "claims"):
            go(browser, f"view={view}&method=lora&axe={dark}")
            assert browser.run(serious) == [], (view, dark)
    browser.run("byId('view').append(document.createElement('button')); 1")
    assert [each.split(":")[0] for each in browser.run(serious)] == ["button-name"]  # it would see something


def test_paper_shows_every_column(browser):
    go(browser, "view=runs&stage=final")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    parts = browser.run("[...document.querySelectorAll('table.printed')].map(t => t.tHead.rows[0].cells.length)")
    assert parts == [8, 8] and sum(parts) - len(parts) == len(texts(browser, "table.split thead th")) - 1
    assert len(browser.send("Page.printToPDF")["data"]) > 10_000
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert not texts(browser, "table.printed")


def test_nothing_from_records_is_a_script(page):
    text = page[0].read_text(encoding="utf-8")
    assert MARKUP not in text and "<img src=x" not in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "script-src 'sha256-" in policy and "unsafe-inline" not in policy.split("script-src")[1]
    assert main([f"results_dir={page[0].parents[1]}", f"runs_dir={page[0].parents[2] / 'runs'}"]) == 0
    assert page[0].read_text(encoding="utf-8") == text  # the same records give the same page
    assert len(text) < 1_000_000
