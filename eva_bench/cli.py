"""The command line: Hydra composes and launches, everything a user did wrong is one sentence and exit code 2."""

from __future__ import annotations

import itertools
import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from eva_bench.errors import UserError
from eva_bench.spec import CONF, compose_spec

_exit_codes: list[int] = []  # of the cells that ran in this process


def main() -> int:
    """Run one cell, or several with Hydra's multirun; the exit code is the worst of them."""
    arguments = sys.argv[1:]
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        if not any(argument.startswith("-") for argument in arguments):
            compose_spec(arguments)  # a mistake is one sentence, before Hydra prints its own pages
        elif {"-m", "--multirun"} & set(arguments):
            _check_sweep([argument for argument in arguments if not argument.startswith("-")])
        _launch()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return max(_exit_codes, default=0)


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def _launch(config: DictConfig) -> None:
    """One cell, in whatever process the launcher put it."""
    from eva_bench.runner import run_cell

    sweeping = HydraConfig.get().mode.name == "MULTIRUN"
    try:
        _exit_codes.append(run_cell(compose_spec(list(HydraConfig.get().overrides.task))))
    except UserError as error:
        if not sweeping:
            raise
        print(f"error: {error}", file=sys.stderr)  # the other cells of the sweep still run
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
