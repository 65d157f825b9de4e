"""The command line: Hydra composes and launches, everything a user did wrong is one sentence and exit code 2."""

from __future__ import annotations

import itertools
import os
import sys
import textwrap

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from eva_bench.errors import UserError
from eva_bench.explain import options
from eva_bench.spec import CONF, compose_spec

INTERRUPTED = 130
_exit_codes: list[int] = []  # of the cells that ran in this process


def main() -> int:
    """Run one cell, or several with Hydra's multirun; the exit code is the worst of them."""
    arguments = sys.argv[1:]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if {"-h", "--help"} & set(arguments) or not arguments:
        print(help_text())
        return 0
    try:
        if {"-c", "--cfg"} & set(arguments):
            print(yaml.safe_dump(_configuration(arguments), sort_keys=False), end="")
            return 0
        if not any(argument.startswith("-") for argument in arguments):
            compose_spec(arguments)  # a mistake is one sentence, before Hydra prints its own pages
        elif {"-m", "--multirun"} & set(arguments):
            _check_sweep([argument for argument in arguments if not argument.startswith("-")])
        _launch()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return max(_exit_codes, default=0)


def help_text() -> str:
    """What can be typed, with every choice that exists in conf/."""
    lines = [
        "eva-bench: how should a low-rank adapter start?",
        "",
        "One run:           python run.py method=eva task=gsm8k",
        "Another value:     python run.py method=eva task=gsm8k method.rho=1 train.lr=1e-3",
        "A sweep:           python run.py -m method=eva,lora,pissa task=gsm8k seed=0,1,2",
        "Show the settings: python run.py method=eva task=gsm8k --cfg job",
        "",
    ]
    for group in ("method", "task", "scale", "model", "tracking"):
        lines += textwrap.wrap(f"{group:<9} {', '.join(options(group))}", 110, subsequent_indent=" " * 10)
    lines += ["", "Recipe and tuned values follow from scale, task and method; the command line always wins."]
    lines += ["Elsewhere: make help, README.md, docs/."]
    return "\n".join(lines)


def _configuration(arguments: list[str]) -> dict:
    """The resolved settings of a run, as its record would hold them."""
    overrides = [item for item in arguments if "=" in item]
    return compose_spec(overrides).values


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def _launch(config: DictConfig) -> None:
    """One cell, in whatever process the launcher put it."""
    from eva_bench.runner import run_cell

    try:
        _exit_codes.append(run_cell(compose_spec(list(HydraConfig.get().overrides.task))))
        if _exit_codes[-1] == INTERRUPTED:
            raise KeyboardInterrupt  # Ctrl-C stops a sweep, not only its present cell
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)  # here, not in Hydra's words; a sweep's other cells still run
        _exit_codes.append(2)


def _check_sweep(arguments: list[str]) -> None:
    """Compose every value of every swept setting once, so that a typo stops the sweep before its first cell.

    Raises:
        UserError: unknown option or key, wrong type, or a sweep without a single cell.
    """
    axes = []
    for override in OverridesParser.create().parse_overrides(arguments):
        if override.is_sweep_override():
            values = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
            if not values:
                raise UserError(f"'{override.input_line}' selects nothing: the sweep would have no cells.")
            axes.append(values)
        else:
            axes.append([override.input_line])
    first = [axis[0] for axis in axes]
    for position, value in itertools.chain.from_iterable([(i, v) for v in axis] for i, axis in enumerate(axes)):
        compose_spec([*first[:position], value, *first[position + 1 :]])
