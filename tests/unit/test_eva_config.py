"""The engine's options: one field each, one value each in conf/method/eva.yaml, variants inherit."""

from dataclasses import fields

import pytest
import yaml

from eva_bench.eva import EvaError, SolverConfig
from eva_bench.eva.method import EVA
from eva_bench.system.errors import UserError
from tests.conftest import CONF, method_values
from tests.settings import make_method

VARIANTS = ["eva_dora", "eva_minor", "eva_perm", "eva_rho1", "eva_rot", "eva_whiten", "lora_redist"]


def test_the_yaml_states_every_option_and_the_library_has_the_same_defaults():
    values = method_values("eva")
    assert {field.name for field in fields(EVA)} <= set(values)
    assert {field.name: values[field.name] for field in fields(SolverConfig)} == vars(SolverConfig())


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_state_only_their_difference(name):
    stated = yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text())
    assert stated.pop("defaults") == ["eva", "_self_"]
    eva, variant = method_values("eva"), method_values(name)
    assert {key for key in variant if variant[key] != eva[key]} == {"name"} | set(stated)
    assert all(variant[key] == value for key, value in stated.items())


def test_the_lowest_variance_directions_need_all_second_moments():
    with pytest.raises(UserError, match=r"method\.solver=exact"):
        make_method(method_values("eva", directions="minor"))


def test_an_unknown_solver_is_named():
    with pytest.raises(EvaError, match="'magic'"):
        SolverConfig(solver="magic")
