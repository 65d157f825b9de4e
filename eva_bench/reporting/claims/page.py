"""docs/claims.md: a table of all claims with verdicts, then what each verdict rests on. No torch here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from eva_bench.reporting.archive import Archive
from eva_bench.reporting.claims.evaluate import judge
from eva_bench.reporting.claims.finding import Finding, Verdict
from eva_bench.reporting.claims.spec import Claim
from eva_bench.reporting.tables.formats import markdown

HEAD = """# Claims of the literature, and what the records here say

Written by `make claims` from `results/records` and `conf/claim/*.yaml`, one file a claim; do not edit. A verdict holds
for the scale at which it was measured and no other: pocket scale is small models on generated data.

*Confirmed*: every statement of the claim holds, with its 95 % interval on the right side. *Contradicted*: an interval
lies on the wrong side. *Undecided*: neither. *Not run*: records that it needs are missing. Differences, intervals and
trainings are those of the model in [report.md](report.md#statistics), fitted over all methods that have every task of
the statement. `python docs/recompute_claims.py` computes the verdicts again without this project's code.
"""

SUFFIX = {"confirmed": " here", "contradicted": " here", "undecided": "", "not run": ""}

Judged = dict[str, tuple[Verdict, list[Finding]]]  # scale -> verdict and findings


def render(claims: Sequence[Claim], archive: Archive) -> str:
    """The page as Markdown."""
    scales = archive.scales()
    judged = {claim.name: {scale: judge(claim, archive, scale) for scale in scales} for claim in claims}
    lines = [HEAD, "| # | claim | verdict |", "| --- | --- | --- |"]
    for claim in claims:
        lines.append(
            f"| [{claim.number}](#{claim.number}) | {markdown(claim.claim)} | {_verdicts(judged[claim.name])} |"
        )
    for claim in claims:
        lines += ["", *_section(claim, judged[claim.name])]
    return "\n".join(lines) + "\n"


def _verdicts(judged: Judged) -> str:
    """`confirmed here (scale pocket)`, for every scale where anything was run."""
    shown = [(scale, verdict) for scale, (verdict, _) in judged.items() if verdict != "not run"]
    return "; ".join(f"{verdict}{SUFFIX[verdict]} (scale {scale})" for scale, verdict in shown) or "not run"


def _with_runs(judged: Judged) -> Judged:
    """The scales at which something was run for a claim; without any the first, which says what is missing."""
    found = {scale: pair for scale, pair in judged.items() if any(part.verdict != "not run" for part in pair[1])}
    return found or dict(itertools.islice(judged.items(), 1))


def _section(claim: Claim, judged: Judged) -> list[str]:
    lines = [f'<a id="{claim.number}"></a>', "", f"## {claim.number}. {claim.claim}", ""]
    lines.append(f"Published: {claim.published} Source: {claim.source}.")
    for scale, (verdict, findings) in _with_runs(judged).items():
        lines += ["", f"**Scale {scale}: {verdict}{SUFFIX[verdict]}.**", ""]
        for finding in findings:
            count = f" ({finding.trainings} trainings)" if finding.trainings else ""
            state = "" if finding.text.endswith(finding.verdict) else f": {finding.verdict}"
            lines.append(f"* {finding.text}{count}{state}")
    if not judged:
        lines += ["", "**Not run.**"]
    if claim.note:
        lines += ["", claim.note]
    links = "[tables](../results/tables), [figures](../results/figures), [records](../results/records)"
    return [*lines, "", f"[conf/claim/{claim.name}.yaml](../conf/claim/{claim.name}.yaml), {links}"]
