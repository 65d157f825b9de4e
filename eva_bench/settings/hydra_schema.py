"""The schema in Hydra's terms: unknown names and wrong types are refused on the command line and in YAML."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Literal, Union, get_args, get_origin

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from pydantic_core import PydanticUndefined

from eva_bench.settings.schema import Choice, Settings
from eva_bench.system.frozen import Frozen


def structured(section: type[Frozen]) -> type:
    """A dataclass with a section's names, types and defaults.

    Hydra knows no literals and no bounds: pydantic checks those.
    Values of methods and tasks stay open here; their classes refuse what they do not know.
    """
    fields: list[tuple[str, Any, Any]] = []
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Choice):
            fields.append((name, Any, dataclasses.field(default=MISSING)))
        elif isinstance(kind, type) and issubclass(kind, Frozen):
            inner = structured(kind)
            fields.append((name, inner, dataclasses.field(default_factory=inner)))
        else:
            default = MISSING if info.default is PydanticUndefined else info.default
            fields.append((name, _plain(kind), dataclasses.field(default=default)))
    return dataclasses.make_dataclass(section.__name__, fields)


def _plain(kind: Any) -> Any:
    """A type without literals: `Literal["a", "b"]` is a string to Hydra."""
    if get_origin(kind) is Literal:
        return type(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        parts = [_plain(part) for part in get_args(kind)]
        return Union[tuple(parts)]  # noqa: UP007 - made at run time
    return kind


def register() -> None:
    """Make the schema known to Hydra, by the name in conf/config.yaml, and `${over:32,8}`: a quotient."""
    OmegaConf.register_new_resolver("over", lambda dividend, divisor: dividend / divisor, replace=True)
    ConfigStore.instance().store(name="schema", node=structured(Settings))
