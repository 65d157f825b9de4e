"""What a claim is: the schema of conf/claim/*.yaml. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from eva_bench.reporting.statistics import MARGIN
from eva_bench.reporting.tables.spec import Row, Strict
from eva_bench.system.errors import UserError, did_you_mean
from eva_bench.system.paths import CONF, choices


class Side(Strict):
    """A method, and the settings in which its runs differ from the benchmark's."""

    method: str
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def row(self) -> Row:
        """The row of a table that holds its runs."""
        shown = [f"{key.rpartition('.')[2]}={value}" for key, value in self.settings.items()]
        return Row(title=", ".join([self.method, *shown]), method=self.method, settings=self.settings)


class _Where(Strict):
    """Which runs a statement is about: tasks or families of conf/table/overall.yaml; default all.

    Attributes:
        scales: that have all of them, where not every scale has; at another the statement is not asked.
    """

    families: list[str] = Field(default_factory=list)
    tasks: list[str] = Field(default_factory=list)
    scales: list[str] = Field(default_factory=list)
    stage: str = "final"


class Compare(_Where):
    """A difference of two methods, mean over families.

    Attributes:
        measure: a metric or fact of the records instead of the scores; then no margin is assumed.
        margin: within which the two count as equal.
        best_rate: of tuning runs, those at the rate that the selection takes; the scores are those of validation data.
    """

    kind: Literal["compare"]
    ours: Side
    theirs: Side
    expect: Literal["higher", "lower", "equal"]
    measure: str | None = None
    margin: float = MARGIN
    best_rate: bool = False


class Tie(_Where):
    """Every pair of some methods is equivalent."""

    kind: Literal["tie"]
    methods: list[str] = Field(min_length=2)
    margin: float = MARGIN


class BestRate(_Where):
    """The best learning rate of ours over that of theirs, geometric mean over tasks and seeds.

    Attributes:
        between: where the ratio should lie; null: no bound.
    """

    kind: Literal["best_rate"]
    ours: Side
    theirs: Side
    between: tuple[float | None, float | None]
    stage: str = "tune"


class Correlation(_Where):
    """Spearman's rank correlation of two measures within tasks lies between two numbers.

    Attributes:
        unit: what a point is; the mean of a method where a measure is the same for all of its trainings.
    """

    kind: Literal["correlation"]
    x: str
    y: str
    unit: Literal["training", "method"] = "training"
    between: tuple[float, float]


class Matching(_Where):
    """What weight matching does to pairs of pretrainings of the models of a scale, mean over pairs.

    Attributes:
        measure: of a pair, see `eva_bench.probes.pretrainings`.
        expect: of the matched pair, against the same as it is.
        scale: of the models.
    """

    kind: Literal["matching"]
    measure: Literal["alignment", "barrier"]
    expect: Literal["higher", "lower"]
    scale: str = "pocket"


Statement = Annotated[Compare | Tie | BestRate | Correlation | Matching, Field(discriminator="kind")]


class Claim(Strict):
    """A published claim, and the statements that all have to hold for it to be confirmed.

    Attributes:
        needs: what has to be measured first, for a claim without statements.
    """

    name: str
    number: int
    claim: str
    published: str
    source: str
    statements: list[Statement] = Field(default_factory=list)
    needs: str | None = None
    note: str | None = None


def read_claim(path: Path) -> Claim:
    """The claim of a YAML file.

    Raises:
        UserError: it is not one.
    """
    where = f"conf/claim/{path.name}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        claim = TypeAdapter(Claim).validate_python({"name": path.stem} | content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {place}: {first['msg']}.") from error
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(f"{where} is not a claim: {str(error).splitlines()[0]}.") from error
    if bool(claim.statements) == bool(claim.needs):
        raise UserError(f"{where}: a claim has either statements or a sentence on what it needs.")
    return claim


def read_claims(folder: Path = CONF / "claim") -> list[Claim]:
    """All claims by number.

    Raises:
        UserError: a file is not a claim, or two have one number.
    """
    claims = sorted((read_claim(path) for path in folder.glob("*.yaml")), key=lambda claim: claim.number)
    numbers = [claim.number for claim in claims]
    if doubles := {number for number in numbers if numbers.count(number) > 1}:
        raise UserError(f"conf/claim: two claims have the number {min(doubles)}.")
    return claims


def check_names(claim: Claim) -> None:
    """Raises UserError for a method or scale that does not exist; a method that is planned is named in `note`."""
    for statement in claim.statements:
        sides = [side.method for side in (getattr(statement, "ours", None), getattr(statement, "theirs", None)) if side]
        used = {"method": [*sides, *getattr(statement, "methods", [])], "scale": statement.scales}
        for kind, names in used.items():
            known = choices(kind)
            for name in names:
                if name not in known:
                    raise UserError(
                        f"conf/claim/{claim.name}.yaml: unknown {kind} '{name}'.{did_you_mean(name, known)}"
                    )
