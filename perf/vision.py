"""Images per second of a training step against a bare PyTorch loop on the same model, and the wait for data.

Blocks of both loops alternate in one process, so that drift of the machine cancels. The pocket model sees generated
images; `photographs=<folder of the archive>` adds real ones, and the time that decoding them takes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

from eva_bench.assets.catalogue import load_rows
from perf import page
from perf.training import Training
from tasks import images

METHODS = ("lora", "full")
STEPS, BLOCKS = 40, 5


def measure(photographs: str | None = None) -> dict[str, dict]:
    """All figures: name -> {value, unit, target}."""
    figures: dict[str, dict] = {}
    for method in METHODS:
        run = Training(method, "vtab1k/dtd", STEPS)
        size = run.settings.batch_size
        blocks = [(run.bare(ready_made=True), *run.ours()) for _ in range(BLOCKS)][1:]  # the first one warms up
        bare, ours, waited = (median(values) for values in zip(*blocks, strict=True))
        ratio = median(b / o for b, o, _ in blocks)
        figures |= {
            f"{method}: training step": page.figure(round(size / ours), "images/s", "-"),
            f"{method}: bare PyTorch loop": page.figure(round(size / bare), "images/s", "-"),
            f"{method}: training step / bare loop": page.figure(round(ratio, 3), "x", ">= 0.9"),
            f"{method}: wait for data": page.figure(round(100 * waited, 2), "% of training", "<= 10"),
        }
    if photographs:
        figures |= _decoding(photographs)
    return figures


def _decoding(root: str) -> dict[str, dict]:
    """Photographs decoded and resized to 224 pixels, here and in two worker processes."""
    paths = [row["image"] for row in load_rows("vtab1k/caltech101", "train_validation", root)]
    rates = {}
    for workers in (0, 2):
        start = time.perf_counter()
        for _ in images.stream(paths, 224, "bicubic", 64, workers):
            pass
        rates[workers] = len(paths) / (time.perf_counter() - start)
    return {
        f"decoding photographs, {workers or 'no'} worker processes": page.figure(round(rate), "images/s", "-")
        for workers, rate in rates.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, write results/bench/vision.{json,md}, print the table."""
    given = dict(item.split("=", 1) for item in (sys.argv[1:] if arguments is None else arguments))
    folder = Path(given.get("out", page.FOLDER))
    page.write("vision", "Vision: speed of training, wait for data", measure(given.get("photographs")), folder=folder)


if __name__ == "__main__":
    main()
