"""Arguments of commands, `name=value`, typed; and the one place where a user's mistake becomes exit code 2."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from eva_bench.system.errors import UserError, did_you_mean, missing_extra
from eva_bench.system.frozen import Frozen
from eva_bench.system.signals import Interrupted

INTERRUPTED = 130


class Arguments(Frozen):
    """What a command understands: one field an argument, with its default and a description for `--help`.

    The docstring of a subclass is the first paragraph of its help. Where `rest` names a field (a list of texts),
    arguments that no field has go there: the settings of runs, which composition checks.
    """

    rest: ClassVar[str | None] = None


Kind = TypeVar("Kind", bound=Arguments)


def run_command(action: Callable[[Kind], int], kind: type[Kind], arguments: Sequence[str] | None = None) -> int:
    """Read a command's arguments, run it, and give its exit code.

    Args:
        action: the command.
        kind: its arguments.
        arguments: as typed; None for those of this process.

    Returns:
        What the command returns; 0 after `--help`; 2, with one sentence, after a mistake; 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        print(help_text(kind))
        return 0
    return guarded(lambda: action(parse(kind, given)))


def guarded(action: Callable[[], int]) -> int:
    """The exit code of an action; what a user can fix is one sentence and 2, without a traceback."""
    try:
        return action()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        if (sentence := missing_extra(error)) is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Interrupted):
        return INTERRUPTED


def parse(kind: type[Kind], arguments: Sequence[str]) -> Kind:
    """Arguments as typed, `name=value` or `--name` for a switch, as their class has them.

    Raises:
        UserError: a name that the command does not know, a value of a wrong type, or one that is missing.
    """
    fields = _fields(kind)
    found: dict[str, str] = {}
    rest: list[str] = []
    for item in arguments:
        name, equals, value = item.partition("=")
        if name.startswith("--") and not equals and name[2:] in fields and fields[name[2:]].annotation is bool:
            found[name[2:]] = "true"
        elif equals and name in fields:
            found[name] = value
        elif kind.rest is not None and not item.startswith("-"):
            rest.append(item)
        elif not equals:
            raise UserError(f"Cannot read '{item}': arguments are given as name=value. {_known(kind)}")
        else:
            near = did_you_mean(name, fields)
            raise UserError(f"Unknown argument '{name}'.{near} {_known(kind)}")
    try:
        return kind.model_validate(found | ({kind.rest: rest} if kind.rest else {}))
    except ValidationError as error:
        item = error.errors()[0]
        name = str(item["loc"][0])
        if item["type"] == "missing":
            raise UserError(f"No value for {name}: add {name}=<value>. {_known(kind)}") from error
        raise UserError(f"{name}={item['input']}: {item['msg'][0].lower()}{item['msg'][1:]}.") from error


def _fields(kind: type[Arguments]) -> dict[str, FieldInfo]:
    """Arguments by the names that are typed."""
    return {field.alias or name: field for name, field in kind.model_fields.items() if name != kind.rest}


def _known(kind: type[Arguments]) -> str:
    return f"Known: {', '.join(_fields(kind))}." if _fields(kind) else "This command takes no arguments."


def help_text(kind: type[Arguments]) -> str:
    """What `--help` prints: what the command does, and every argument with its default."""
    lines = [inspect.cleandoc(kind.__doc__ or ""), ""]
    for name, field in _fields(kind).items():
        default = "needed" if field.is_required() else f"default {field.default}" if field.default is not None else ""
        note = f" ({default})" if default else ""
        lines.append(f"  {name + '=':<19} {field.description or ''}{note}")
    if kind.rest:
        lines.append(f"  {'<setting>=<value>':<19} {kind.model_fields[kind.rest].description or ''}")
    return "\n".join(lines)
