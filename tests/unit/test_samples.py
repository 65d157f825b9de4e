"""Answering rows in chunks: every row once, in order, and again after any interruption the same."""

import json

import pytest

from eva_bench.records import samples
from tasks.samples import answer_rows

ROWS = [f"row {i}" for i in range(10)]


def run(file, asked, rows=ROWS, chunk=4, progress=lambda done, total: None):
    def answer(part, first, answered):
        asked.append((first, len(part)))
        answered(1)
        return [{"row": first + i, "text": text, "name": "é"} for i, text in enumerate(part)]

    return answer_rows(rows, file, chunk, answer, progress)


def test_every_row_is_answered_once_and_in_order(tmp_path):
    asked = []
    samples = run(tmp_path / "samples.jsonl", asked)
    assert asked == [(0, 4), (4, 4), (8, 2)]
    assert [s["text"] for s in samples] == ROWS
    assert [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()] == samples


def test_progress_within_a_chunk_counts_the_rows_before_it(tmp_path):
    shown = []
    run(tmp_path / "samples.jsonl", [], progress=lambda done, total: shown.append((done, total)))
    assert shown == [(done, 10) for done in (0, 1, 4, 5, 8, 9, 10)]


@pytest.mark.parametrize("kept_bytes", [0, 1, 60, 170, 330, 10_000])
def test_a_cut_file_is_continued_at_a_whole_chunk(tmp_path, kept_bytes):
    file = tmp_path / "samples.jsonl"
    expected = run(file, [])
    whole = file.read_bytes()
    file.write_bytes(whole[:kept_bytes])
    asked = []
    assert run(file, asked) == expected
    assert file.read_bytes() == whole
    assert all(first % 4 == 0 for first, _ in asked)
    assert not asked if kept_bytes >= len(whole) else asked


def test_a_damaged_line_and_what_follows_are_answered_again(tmp_path):
    file = tmp_path / "samples.jsonl"
    expected = run(file, [])
    lines = file.read_bytes().split(b"\n")
    lines[5] = lines[5][:7]
    file.write_bytes(b"\n".join(lines))
    asked = []
    assert run(file, asked) == expected
    assert asked[0] == (4, 4)


def test_answers_of_other_weights_are_forgotten(tmp_path):
    file, asked = tmp_path / "run/samples.jsonl", []
    for answered_by, wanted in (("weights", 3), ("weights", 0), ("others", 3), ("weights", 3)):
        asked.clear()
        samples.begin(file, answered_by)
        run(file, asked)
        assert len(asked) == wanted
    samples.begin(file, "weights", fresh=True)
    assert not file.exists()


@pytest.mark.parametrize("row", [0, 5, 9])
def test_an_edited_answer_is_answered_again(row, tmp_path, capsys):
    file, asked = tmp_path / "samples.jsonl", []
    samples.begin(file, "weights")
    expected = run(file, [])
    whole = file.read_text()
    file.write_text(whole.replace(f'"row {row}"', f'"ROW {row}"'))
    samples.begin(file, "weights")
    assert run(file, asked) == expected and file.read_text() == whole
    assert asked[0] == (row // 4 * 4, min(4, 10 - row // 4 * 4)) and "is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "null", "{", '{"sha256": "x", "content": []}'])
def test_samples_whose_checksums_are_damaged_are_answered_again(content, tmp_path):
    file, asked = tmp_path / "samples.jsonl", []
    expected = run(file, [])
    (tmp_path / "samples.checksums.json").write_text(content)
    assert run(file, asked) == expected and len(asked) == 3


def test_another_chunk_size_begins_where_its_chunks_agree(tmp_path):
    file, asked = tmp_path / "samples.jsonl", []
    run(file, [], rows=ROWS[:4])
    assert run(file, asked, chunk=3) and asked[0] == (0, 3)
