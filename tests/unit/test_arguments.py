"""Arguments of commands: typed, refused with the near match, helped; mistakes are exit code 2 everywhere."""

from __future__ import annotations

import importlib
import re

import pytest

from eva_bench.records import wandb_sync
from eva_bench.run import fetch
from eva_bench.sweeps import slurm, status, tune
from eva_bench.system import paths
from eva_bench.system.arguments import guarded, help_text, parse
from perf import main as performance

COMMANDS = {
    "select": (tune, tune.TuneArguments),
    "status": (status, status.StatusArguments),
    "submit": (slurm, slurm.SubmitArguments),
    "fetch": (fetch, fetch.FetchArguments),
    "wandb-sync": (wandb_sync, wandb_sync.SyncArguments),
}
REPORTING = ("tables", "figures", "page", "claims")


def main_of(name: str):
    module = importlib.import_module(f"eva_bench.reporting.{name}") if name in REPORTING else COMMANDS[name][0]
    return module.main


@pytest.mark.parametrize("name", [*COMMANDS, *REPORTING])
def test_every_command_has_help_and_refuses_what_it_does_not_know(name, capsys):
    assert main_of(name)(["--help"]) == 0
    assert "=" in capsys.readouterr().out
    assert main_of(name)(["--nosuch"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.parametrize("name", [name for name in (*COMMANDS, *REPORTING) if name not in ("status", "submit")])
def test_an_unknown_name_gives_the_near_match(name, capsys):
    known = re.search(r"^  (\w+)=", _help(name, capsys), re.MULTILINE)[1]
    misspelt = f"{known[:-1]}x"
    assert main_of(name)([f"{misspelt}=1"]) == 2
    assert f"Unknown argument '{misspelt}'. Did you mean '{known}'" in capsys.readouterr().err


def _help(name: str, capsys) -> str:
    main_of(name)(["--help"])
    return capsys.readouterr().out


def test_a_misspelt_family_rewrites_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "CONF", tmp_path)
    assert tune.main(["famly=glue"]) == 2
    assert "Unknown argument 'famly'. Did you mean 'family'?" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*"))


def test_values_are_typed_and_settings_of_runs_are_passed_on():
    found = parse(status.StatusArguments, ["suite=smoke", "--json", "train.lr=1e-3", "seed=0,1"])
    assert (found.suite, found.as_json, found.settings) == ("smoke", True, ["train.lr=1e-3", "seed=0,1"])
    assert parse(wandb_sync.SyncArguments, ["rebuild=true"]).rebuild is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rebuild=perhaps"], "rebuild=perhaps: input should be a valid boolean"),
        (["mode=loud"], "mode=loud: input should be 'auto', 'online' or 'offline'"),
        (["runs"], "Cannot read 'runs'"),
    ],
)
def test_a_wrong_value_is_one_sentence(arguments, said, capsys):
    assert wandb_sync.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_what_is_needed_is_asked_for(capsys):
    assert status.main([]) == 2
    assert "No value for suite: add suite=<value>" in capsys.readouterr().err
    assert "needed" in help_text(status.StatusArguments)


def test_ctrl_c_is_130():
    def stop() -> int:
        raise KeyboardInterrupt

    assert guarded(stop) == 130


def test_the_figures_of_speed_take_no_arguments_and_say_so_before_they_measure(capsys, monkeypatch):
    monkeypatch.setattr(performance.core, "main", lambda: pytest.fail("measured"))
    assert performance.main(["results_dir=mine"]) == 2
    assert "Unknown argument 'results_dir'. This command takes no arguments." in capsys.readouterr().err
    assert performance.main(["--help"]) == 0
    assert "results/bench" in capsys.readouterr().out
