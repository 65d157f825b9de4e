"""A finished table as Markdown, LaTeX, CSV and LaTeX macros. No torch here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

from eva_bench.reporting.tables.table import Cell, Table

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\^{}",
    "~": r"\~{}",
    "±": r"$\pm$",
    "–": "--",
    "≥": r"$\geq$",
    "<": r"$<$",
    ">": r"$>$",
    "…": r"\ldots{}",
}

MINUS = re.compile(r"(?<![\w.)])-(?=\d)")

NUMBERS_HEAD = r"""% Written by `make tables`. \evabench{<table>/<row>/<column>} is that cell, an unknown one an error.
\providecommand{\evabench}[1]{%
  \ifcsname evabench/#1\endcsname\csname evabench/#1\endcsname\else\errmessage{no such cell: #1}\fi}
\providecommand{\evabenchcell}[2]{\expandafter\def\csname evabench/#1\endcsname{#2}}
"""


def latex(text: str) -> str:
    """Any text, safe in LaTeX; a minus before a number is one."""
    escaped = "".join(LATEX.get(character, character) for character in text)
    return MINUS.sub("$-$", escaped)


def markdown(text: str) -> str:
    """Any text, safe in a cell of a Markdown table."""
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*"), ("\n", " ")):
        text = text.replace(character, escaped)
    return text


def to_markdown(table: Table) -> str:
    """The table under its title, the notes below."""

    def show(cell: Cell) -> str:
        return f"**{markdown(cell.text)}**" if cell.bold else markdown(cell.text)

    lines = [
        f"# {table.title}",
        "",
        "| " + " | ".join(map(markdown, table.header)) + " |",
        "|" + " --- |" * len(table.header),
    ]
    for line in table.lines:
        title = f"*{markdown(line.title)}*" if line.kind == "published" else markdown(line.title)
        lines.append("| " + " | ".join([title, *map(show, line.cells)]) + " |")
    return "\n".join([*lines, "", *(f"{note}  " for note in table.notes)]).rstrip() + "\n"


def to_latex(table: Table) -> str:
    """A booktabs tabular, the notes as comments."""
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(latex, table.header)) + r" \\", r"\midrule"]
    kind = table.lines[0].kind
    for line in table.lines:
        if line.kind != kind:
            lines.append(r"\midrule")
        kind = line.kind
        cells = [rf"\textbf{{{latex(cell.text)}}}" if cell.bold else latex(cell.text) for cell in line.cells]
        lines.append(" & ".join([latex(line.title), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in table.notes)]) + "\n"


def to_csv(table: Table) -> str:
    """Header and lines, without marks and notes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([line.title, *(cell.text for cell in line.cells)] for line in table.lines)
    return text.getvalue()


def to_numbers(tables: Iterable[Table]) -> str:
    """A macro for every cell of every table that holds a number of ours."""
    lines = [
        rf"\evabenchcell{{{_key(table.file, line.title, column)}}}{{{latex(cell.text)}}}"
        for table in tables
        for line in table.lines
        if line.kind != "published"
        for column, cell in zip(table.header[1:], line.cells, strict=True)
        if cell.sort is not None
    ]
    return NUMBERS_HEAD + "\n".join(lines) + "\n"


def _key(*parts: str) -> str:
    """A name for a cell: nothing in it may end a macro's argument or mean something to TeX."""
    return "/".join("".join(c if c.isalnum() or c in " -_.,:()=" else " " for c in part) for part in parts)
