"""Six of the kills of `make test-faults`, and proof that their comparison would notice a loss."""

from __future__ import annotations

import json

import pytest

from tests.faults.kill import Commands, kill_often, outcome


@pytest.fixture(scope="module")
def commands(checkpoint, mirror) -> Commands:
    return Commands([f"model.path={checkpoint('smollm2_135m')}", f"data.root={mirror}"])


def test_six_kills_lose_nothing_and_change_no_byte(commands, tmp_path):
    figure = kill_often(6, tmp_path, commands, seed=6)
    assert sum(figure["phases"].values()) == 6 and len(figure["phases"]) >= 3
    assert figure["continued from a checkpoint"] >= 1  # some kills did hit the training


def test_the_comparison_notices_a_loss(commands, tmp_path):
    commands.run(tmp_path)
    wanted = outcome(tmp_path)
    first, second = sorted((tmp_path / "results/records").rglob("*.json"))
    content = json.loads(first.read_text())
    content["curve"][0][1] += 1e-9
    first.write_text(json.dumps(content))
    assert outcome(tmp_path) != wanted
    second.write_text(second.read_text()[:-20])
    with pytest.raises(ValueError):
        outcome(tmp_path)
    second.unlink()
    with pytest.raises(AssertionError):
        outcome(tmp_path)
