"""The report page in a real browser: opens from disk, sorts, filters, shows a run, keeps markup as text."""

from __future__ import annotations

import json
import re

import pytest

from eva_bench.records.store import Store
from eva_bench.reporting.page import main
from tests.browser import Browser, executable
from tests.records import record

MARKUP = "</script><img src=x onerror=\"document.title='broken'\"> \\frac{1}{2} $x_1$ & <b>bold</b>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of 130 runs, one of them failed, one with samples full of markup."""
    folder = tmp_path_factory.mktemp("report")
    store = Store(folder / "results")
    store.check_writable()
    methods = {"lora": 0.5, "eva": 0.7, "pissa": 0.6}
    records = [record(method, seed, score + seed / 100) for method, score in methods.items() for seed in range(3)]
    records += [record("eva", 100 + i, i / 200, spec={"stage": "tune"}) for i in range(120)]
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
def browser(page, tmp_path_factory):
    if executable() is None:
        pytest.skip("no Chromium on this machine: the page is not tested in a browser")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(page[0].as_uri())
        yield opened


def texts(browser: Browser, selector: str) -> list[str]:
    return browser.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")


def type_into(browser: Browser, field: str, text: str) -> None:
    browser.run(f"(() => {{ const f = {field}; f.value = '{text}'; f.dispatchEvent(new Event('input')); }})()")


def test_it_opens_from_disk_without_complaints_and_asks_for_nothing_else(browser, page):
    assert browser.complaints == []
    assert [address for address in browser.requests if not address.startswith("data:")] == [page[0].as_uri()]
    assert texts(browser, ".facts li")[:2] == ["130 records", "129 finished"]
    browser.wait(
        "[...document.images].every(image => "
        "{ image.scrollIntoView(); return image.complete && image.naturalWidth > 100; })"
    )


def table(name: str) -> str:
    return f"#table-{name}-pocket-pocket_language"


def test_a_column_sorts_both_ways_with_missing_values_last_and_published_lines_in_place(browser):
    browser.run(f"document.querySelector('{table('math')}').open = true")
    head = f"document.querySelectorAll('{table('math')} thead th')[1]"
    browser.run(f"{head}.firstElementChild.click()")
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "descending"
    rows = texts(browser, f"{table('math')} tbody:not(.published) th")
    assert rows[:3] == ["eva", "pissa", "lora"]
    browser.run(f"{head}.firstElementChild.click()")
    rows = texts(browser, f"{table('math')} tbody:not(.published) th")
    assert rows[:5] == ["untrained", "svfit", "lora", "pissa", "eva"] and len(rows) == 10
    assert texts(browser, f"{table('math')} tbody.published th")[0] == "Llama-2-7B (EVA T8): LoRA"


def test_sorting_works_with_the_keyboard_alone(browser):
    browser.run(f"document.querySelector('{table('gsm8k')}').open = true")
    browser.run(f"document.querySelector('{table('gsm8k')} thead button').focus()")
    browser.press("Tab", 9)
    browser.press("Enter", 13)
    assert browser.run("document.activeElement.textContent") == "strict"
    assert texts(browser, f"{table('gsm8k')} tbody th")[0] == "eva"


def test_a_filter_hides_rows(browser):
    type_into(browser, f"document.querySelector('{table('gsm8k')} .filter')", "piss")
    assert texts(browser, f"{table('gsm8k')} tbody tr:not([hidden]) th") == ["pissa"]


def test_the_list_of_runs_shows_a_hundred_filters_and_sorts(browser):
    assert len(texts(browser, "#run-list tbody tr")) == 100
    browser.run("document.getElementById('run-more').click()")
    assert len(texts(browser, "#run-list tbody tr")) == 130 and browser.run(
        "document.getElementById('run-more').hidden"
    )
    type_into(browser, "document.getElementById('run-filter')", "EVA final")
    assert texts(browser, "#run-count") == ["3 of 3 shown"]
    score = (
        "[...document.querySelectorAll('#run-list thead th')].find(h => h.textContent === 'score').firstElementChild"
    )
    browser.run(f"{score}.click()")
    assert texts(browser, "#run-list tbody tr td:nth-child(9)") == ["0.72", "0.71", "0.7"]


def test_a_run_opens_with_curves_origin_and_samples_whose_markup_stays_text(browser, page):
    run_id = page[1][0].run_id
    browser.run(f"location.hash = '#run/{run_id}'")
    browser.wait("!document.getElementById('run').hidden")
    assert browser.run("document.activeElement.id") == "run" and texts(browser, "#run h2") == ["lora on gsm8k, seed 0"]
    assert browser.run("document.querySelectorAll('#run svg polyline').length") == 2
    shown = texts(browser, "#run")[0]
    assert (
        MARKUP in shown
        and "second" in shown
        and "x" * 600 + " …" in shown
        and "secret" not in shown
        and "half" not in shown
    )
    assert "method=lora task=gsm8k seed=0" in shown and "a" * 40 in shown and "train.lr" in shown
    failed = page[1][-1].run_id
    browser.run(f"location.hash = '#run/{failed}'")
    browser.wait("document.querySelector('#run h2').textContent.startsWith('svfit')")
    assert "Status: failed. " + MARKUP in texts(browser, "#run p")[0] and "nan" in texts(browser, "#run")[0]
    assert browser.run("document.title") == "eva-bench: report" and browser.complaints == []


def test_what_was_not_run_is_listed(browser):
    shown = texts(browser, "#not-run")[0]
    assert "Nothing has been run at scale lite, paper." in shown and "Meta-World CW10 (metaworld)" in shown
    assert re.search(r"GSM8K, scale=pocket, pocket_language: no runs of full, .*svfit", shown) and "failed, " in shown


def test_nothing_is_wider_than_a_phone_and_paper_shows_every_table(browser):
    browser.run("location.hash = ''")
    browser.resize(390, 844)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    browser.resize(1200, 900)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("[...document.querySelectorAll('details')].every(d => d.open)")
    assert len(browser.send("Page.printToPDF")["data"]) > 10_000


def test_markup_from_records_reaches_the_page_escaped(page):
    text = page[0].read_text(encoding="utf-8")
    assert MARKUP not in text and "<img src=x" not in text
    assert main([f"results_dir={page[0].parents[1]}", f"runs_dir={page[0].parents[2] / 'runs'}"]) == 0
    assert page[0].read_text(encoding="utf-8") == text  # the same records give the same page


def test_no_records_at_all_give_a_page_that_says_so(tmp_path):
    assert main([f"results_dir={tmp_path}"]) == 0
    text = (tmp_path / "report/index.html").read_text()
    assert "No table has records yet" in text and "Nothing has been run at scale lite, paper, pocket." in text


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / "report").write_text("a file, not a folder")
    assert main([f"results_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("error: the report cannot be written")
