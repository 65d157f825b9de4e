"""Every figure that has a target, in one table: results/bench/targets.md, from what the other modules wrote.

`python -m perf.targets`
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from perf import page

FIGURES = (
    "core",
    "probes",
    "sweeps",
    "vision",
    "small",
    "control",
    "report",
)  # files of {figure: {value, unit, target}}
SVD_SIDE = 768  # from this size on; below, both take less than a millisecond
OVER_FORWARD = {384: 1.2, 512: 1.2, 2048: 1.1}  # in bf16, by width
NOTE = """
`no`: [docs/decisions.md](../../docs/decisions.md) says what was tried. The pages of the first column have all figures.
`make perf`
"""


def rows(folder: Path = page.FOLDER) -> list[dict[str, Any]]:
    """One row a figure with a target: page, figure, measured, target, met."""
    found = []
    for name in FIGURES:
        for figure, facts in _read(folder, name).items():
            found.append((name, figure, facts["value"], facts["unit"], facts["target"]))
    found += _eva(_read(folder, "eva_init"))
    for line in _read(folder, "start_up"):
        if bound(line["target"]):
            facts = (float(line["times the passes"]), "x", line["target"])
            found.append(("start_up", f"initialisation of {line['method']} over its passes", *facts))
    return [
        {"page": f"[{name}]({name}.md)", "figure": figure, "measured": f"{value} {unit}".strip(), "target": target,
         "met": "yes" if met(value, target) else "no"}
        for name, figure, value, unit, target in found
        if bound(target)
    ]  # fmt: skip


def bound(target: str) -> tuple[str, float] | None:
    """Direction and number of a target such as `<= 60`; None where there is none."""
    match = re.match(r"([<>]=)?\s*([\d.]+)", target)
    return (match[1] or "==", float(match[2])) if match else None


def met(value: float, target: str) -> bool:
    """Whether a figure reaches its target."""
    found = bound(target)
    assert found, target
    direction, number = found
    return {"<=": value <= number, ">=": value >= number, "==": value == number}[direction]


def _eva(measured: dict[str, Any]) -> list[tuple[str, str, float, str, str]]:
    """The figures of EVA's initialisation that have a target; its page has all of them."""
    found = []
    for part in (name for name in measured if name.startswith("against_peft_")):
        model = part.removeprefix("against_peft_")
        for row in (row for row in measured[part] if "ours_s" in row):
            title = f"EVA on {model}, freed memory {row['freed memory']}"
            worst, total = min(0.99, row["worst_peft"]), row["captured_peft"]
            found += [
                (f"{title}: PEFT's seconds over ours", row["peft_over_ours"], "x", ">= 10"),
                (f"{title}: captured of the best", row["captured_ours"], "", f">= {total:.4f}, as PEFT"),
                (f"{title}: of it in the worst layer", row["worst_ours"], "", f">= {worst:.4f}"),
            ]
    for row in measured.get("over_forward", []):
        if row["bf16"] and row["width"] in OVER_FORWARD:
            target = f"<= {OVER_FORWARD[row['width']]}"
            found.append((f"EVA over bare bf16 passes, width {row['width']}", row["over_forward"], "x", target))
    for row in (row for row in measured.get("svd", []) if row["side"] >= SVD_SIDE):
        title = f"SVD {row['side']} x {row['side']}, rank {row['rank']}, decay {row['decay']}, over pissa_niter_16"
        found.append((title, row["ours_over_peft"], "x", "<= 0.9"))
        found.append((f"{title}: residual", row["residual_ours"] / row["residual_peft"], "x", "<= 1"))
    return [("eva_init", figure, round(value, 4), unit, target) for figure, value, unit, target in found]


def _read(folder: Path, name: str) -> Any:
    file = folder / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def main() -> None:
    """Write and print the table."""
    page.write_rows("targets", "Figures and their targets", rows(), NOTE)


if __name__ == "__main__":
    main()
