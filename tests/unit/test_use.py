"""The code that the report gives to take away: its configuration is run, and is that of the benchmark's runs."""

from __future__ import annotations

import ast

import peft
import pytest
import torch
import yaml

from eva_bench.reporting.archive import Run
from eva_bench.reporting.page import use
from eva_bench.system.paths import choices
from tests.records import record

IN_PEFT = yaml.safe_load((use.Path(use.__file__).with_name("peft.yaml")).read_text(encoding="utf-8"))


def code_of(method: str, **changes) -> str:
    spec = {"adapter": {"rank": 6, "alpha": 12.0}, "train": {"lr": 0.004}, "model": {"targets": ["q_proj", "v_proj"]}}
    return use.peft_code(Run.of(record(method, spec=spec | {"method": {"rho": 2.0}}, **changes)))


@pytest.mark.parametrize("method", sorted(IN_PEFT))
def test_the_configuration_runs_in_stock_peft_and_is_the_runs_own(method):
    code = code_of(method)
    wanted = [
        node
        for node in ast.parse(code).body
        if "config" in ast.unparse(node).lower() and "get_peft_model(m" not in ast.unparse(node)
    ]
    names: dict = {}
    exec(compile(ast.Module(wanted, []), "snippet", "exec"), names)
    config = names["config"]
    assert isinstance(config, peft.LoraConfig) and (config.r, config.lora_alpha) == (6, 12)
    assert config.target_modules == {"q_proj", "v_proj"} and method in choices("method")
    if method == "eva":
        assert config.eva_config.rho == 2.0 and "initialize_eva(model, batches, rho=2.0)" in code


@pytest.mark.parametrize("method", ["lora", "pissa", "olora", "rslora", "orthogonal"])
def test_all_of_it_runs_on_a_model(method):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj, self.v_proj = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    names = {"torch": torch, "model": Net()}
    exec(code_of(method), names)
    (group,) = names["optimizer"].param_groups
    assert group["lr"] == 0.004 and sum(p.numel() for p in group["params"]) == 2 * 2 * 6 * 8


def test_what_peft_does_not_have_is_an_adapter_of_a_run_and_full_fine_tuning_has_none():
    assert 'PeftModel.from_pretrained(model, "runs/<run_id>/adapter"' in code_of("sorsa")
    assert "peft" not in code_of("full", ranks={}) and "model.parameters()" in code_of("full", ranks={})
    assert "# cosine" not in code_of("lora") and "10 steps, batches of 4" in code_of("lora")
