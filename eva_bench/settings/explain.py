"""Turn Hydra's and pydantic's errors into one sentence for the person at the keyboard."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from eva_bench.settings.schema import Settings, groups
from eva_bench.system import paths
from eva_bench.system.errors import UserError, did_you_mean
from eva_bench.system.paths import choices


def listing(names: Sequence[str]) -> str:
    """Choices in one line: long groups by the name of their folder."""
    if len(names) <= 20:
        return ", ".join(names)
    folders = Counter(name.partition("/")[0] for name in names if "/" in name)
    shown = [name for name in names if "/" not in name] + [f"{name}/... ({count})" for name, count in folders.items()]
    return ", ".join(sorted(shown))


def explain_hydra_error(error: Exception, overrides: Sequence[str]) -> str:
    """One sentence for an error raised while composing a configuration."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{Path(mark.name).name} is not valid YAML: {error.problem} in line {mark.line + 1}."
    text = f"{error}\n{error.__cause__ or ''}"
    if match := re.search(r"You must specify '(\w+)'", text):
        group = match[1]
        for key in (item.lstrip("+~").split("=")[0] for item in overrides):
            if "." not in key and "/" not in key and key not in known_settings():  # perhaps a misspelt `method=`
                return f"Unknown setting '{key}' on the command line.{_similar_keys(key)}"
        return f"No {group} was chosen: add {group}=<name>. Known: {listing(choices(group))}."
    if match := re.search(r"Could not find '(\w+)/([^']+)'", text):
        group, name = match[1], match[2]
        if group == "recipe":
            scale, _, family = name.partition("/")
            return f"There is no recipe for task family '{family}' at scale '{scale}' (conf/recipe/{name}.yaml)."
        known = choices(group)
        return f"Unknown {group} '{name}'.{did_you_mean(name, known)} Known: {listing(known)}."
    if match := re.search(r"Could not override '([\w.]+)'", text):
        return f"Unknown setting '{match[1]}' on the command line.{_similar_keys(match[1])}"
    if match := re.search(r"In '([^']+)': (?:\w+) raised while composing config:\s*([^\n]+)", text):
        return f"conf/{match[1]}.yaml: {match[2].strip().rstrip('.')}."
    if match := re.search(r"Error merging override (\S+)", text):
        reason = re.search(r"(Value '[^\n]*|[^\n]*could not be converted[^\n]*)", text)
        return f"Wrong value in '{match[1]}': {reason[1].strip() if reason else 'it does not fit the setting'}."
    if match := re.search(r"Ambiguous value for argument '([^\n]*)'", text):
        return f"'{match[1]}' gives several values: add -m to run all of them."
    if match := re.search(r"LexerNoViableAltException: ([^\n]*)", text):
        return f"Cannot read '{match[1]}' on the command line: settings are given as name=value."
    if match := re.search(r"Interpolation key '([^']*)' not found\s+full_key: ([\w.]+)", text):
        return f"{match[2]} refers to '{match[1]}', which is no setting."
    if match := re.search(r"Error parsing override '([^']*)'", text):
        return f"Cannot read '{match[1]}' on the command line: settings are given as name=value."
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"The configuration cannot be composed: {first}"


def check_added_and_removed(overrides: Sequence[str]) -> None:
    """Hydra's `+key=value` and `~key` go round the schema; here they do not.

    Raises:
        UserError: a key that no setting has, or the removal of a setting.
    """
    for item in overrides:
        key = item.lstrip("+~").split("=")[0]
        if item.startswith("-"):
            raise UserError(f"There is no option '{item}': settings are given as name=value; --help lists them.")
        if item.startswith("~"):
            raise UserError(f"'{item}': settings cannot be removed; give {key} another value.")
        own_check = key.split(".")[0] in ("method", "task", "hydra") or "/" in key
        if item.startswith("+") and not own_check and key not in known_settings():
            raise UserError(f"Unknown setting '{key}' on the command line.{_similar_keys(key)}")


def _similar_keys(dotted: str) -> str:
    return did_you_mean(dotted, known_settings() | {"suite"})


def known_settings() -> set[str]:
    """The keys that exist in the schema and in the YAML files of methods and tasks."""
    known = set(Settings.model_fields)
    for group, section in groups().items():
        known.update(f"{group}.{name}" for name in section.model_fields)
    for group in ("method", "task"):
        for path in (paths.CONF / group).rglob("*.yaml"):
            known.update(f"{group}.{key}" for key in (yaml.safe_load(path.read_text()) or {}) if key[0] not in "_d")
    return known


def explain_settings_error(error: ValidationError) -> str:
    """One sentence for a setting whose value cannot be: not among its choices, out of bounds, not finite."""
    item = error.errors()[0]
    name = ".".join(str(part) for part in item["loc"])
    given = f"{name}={item['input']}"
    bounds = {
        "greater_than": "greater than {gt:g}",
        "greater_than_equal": "at least {ge:g}",
        "less_than_equal": "at most {le:g}",
    }
    context = item.get("ctx", {})
    if item["type"] == "literal_error":
        return f"{given} is not one of {_unquoted(context['expected'])}."
    if item["type"] in bounds:
        return f"{given} must be {bounds[item['type']].format(**context)}."
    if item["type"] == "finite_number":
        return f"{given} must be a finite number."
    if item["type"] == "string_too_short":
        return f"{name} is empty."
    if item["type"] == "missing":
        return f"No value for {name}."
    return f"Wrong value in '{given}': {item['msg'][0].lower()}{item['msg'][1:]}."


def _unquoted(expected: str) -> str:
    """Pydantic's `'a', 'b' or 'c'` as `a, b, c`."""
    return ", ".join(re.findall(r"'([^']*)'", expected))


def explain_validation_error(error: ValidationError, where: str) -> str:
    """One sentence for a pydantic ValidationError of a method's or task's values."""
    parts: dict[str, str] = {}  # one reason per value: a union of types reports one error per type
    for item in error.errors():
        name = str(item["loc"][0]) if item["loc"] else where
        if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            reason = f"unknown key '{name}'"
        elif item["type"] in ("missing_argument", "missing", "missing_keyword_only_argument"):
            reason = f"no value for '{name}'"
        elif not item["loc"] and item["type"] == "value_error":  # of the values together: the class's own sentence
            reason = str(item["ctx"]["error"]).rstrip(".")
        else:
            reason = f"{name}={item.get('input')!r}: {item['msg'][0].lower()}{item['msg'][1:]}"
        parts[name] = f"{parts[name]}, or {item['msg'][0].lower()}{item['msg'][1:]}" if name in parts else reason
    return f"{where}: {'; '.join(parts.values())}."
