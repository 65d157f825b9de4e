"""A method or task made from its settings; the class is named by `_target_`, so that nothing here imports it."""

from __future__ import annotations

from typing import TypeVar

from hydra.utils import get_class
from pydantic import ValidationError

from eva_bench.settings.explain import explain_validation_error
from eva_bench.settings.schema import Choice
from eva_bench.system.errors import UserError, missing_extra

Part = TypeVar("Part")


def build(choice: Choice, kind: type[Part]) -> Part:
    """A method or task from its choice.

    Raises:
        UserError: `_target_` names no such class, or the class refuses a value.
    """
    group = kind.__name__.lower()
    try:
        found = get_class(choice.target)
    except Exception as error:
        if sentence := missing_extra(error):
            raise UserError(sentence) from error
        raise UserError(f"{group}._target_={choice.target} cannot be imported: {error}") from error
    if not issubclass(found, kind):
        raise UserError(f"{group}._target_={choice.target} is no {group} of this suite.")
    if undefined := sorted(getattr(found, "__abstractmethods__", ())):
        raise UserError(f"{group}._target_={choice.target} does not define {', '.join(undefined)}.")
    try:
        return found(**choice.values)
    except ValidationError as error:
        raise UserError(explain_validation_error(error, group)) from error
