"""The errors a user can cause, each one clear sentence on the terminal and exit code 2."""

import difflib
from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement


class UserError(Exception):
    """Something the user can mend: printed as one sentence, without a traceback, exit code 2."""


class NonFiniteLoss(RuntimeError):
    """The training loss or its gradient became NaN or infinite; the run ends with a `failed` record.

    Attributes:
        step: optimiser step (counted from 1) at which it happened.
    """

    def __init__(self, step: int, loss: float, gradient_norm: float):
        super().__init__(f"the training loss is {loss} and its gradient norm {gradient_norm} at step {step}")
        self.step = step


def missing_extra(error: BaseException | None) -> str | None:
    """One sentence where an error comes from a missing module that an extra brings; None for any other."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    module = (error.name or "").partition(".")[0] if error is not None else ""
    for line in metadata.requires("eva-bench") or []:
        requirement = Requirement(line)
        if requirement.name.replace("-", "_") != module or requirement.marker is None:
            continue
        for extra in metadata.metadata("eva-bench").get_all("Provides-Extra") or []:
            if requirement.marker.evaluate({"extra": extra}):
                return f"This needs {requirement.name}, which is not installed: pip install 'eva-bench[{extra}]'."
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or an empty string where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
