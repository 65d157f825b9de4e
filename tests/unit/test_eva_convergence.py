"""The estimate of what is missing against what really is; layers that rest; where the reading ends."""

import pytest
import torch
from torch import nn

from eva_bench.eva.convergence import rotation_loss
from tests.eva import subspaces

WIDTH, COMPONENTS = 24, 5
SCALES = torch.arange(1, WIDTH + 1).pow(-0.75)


def clustered_batches(seed: int, count: int = 20, sequences: int = 4, tokens: int = 12) -> list[torch.Tensor]:
    """Rows (48, in) whose variance is half between sequences and half within them."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(count):
        between = torch.randn(sequences, 1, WIDTH, generator=generator)
        within = torch.randn(sequences, tokens, WIDTH, generator=generator)
        batches.append((((between + within) / 2**0.5) * SCALES).reshape(-1, WIDTH) + 3)
    return batches


@pytest.mark.parametrize("solver", ["exact", "sketch"])
def test_the_gap_is_the_captured_variance_that_is_really_missing(solver):
    best = float(SCALES[:COMPONENTS].square().sum())
    gaps, losses = [], []
    for seed in range(30):
        result = subspaces(
            nn.Sequential(nn.Linear(WIDTH, 2)), ["0"], clustered_batches(seed), components=COMPONENTS, solver=solver,
            columns=16, tolerance=1e-9,
        )  # fmt: skip
        captured = float((result.layers["0"].components * SCALES).square().sum())
        gaps.append(result.gap)
        losses.append(1 - captured / best)
    assert 0.6 < (sum(gaps) / len(gaps)) / (sum(losses) / len(losses)) < 1.6


def test_a_rotation_loses_what_two_dimensions_lose():
    distance, mixed = 2.0, 0.7
    matrix = torch.tensor([[3.0, mixed], [mixed, 3.0 - distance]])
    direction = torch.linalg.eigh(matrix).eigenvectors[:, 1]
    lost = 3.0 - float(direction[0] ** 2 * 3.0 + direction[1] ** 2 * (3.0 - distance))
    assert float(rotation_loss(torch.tensor(mixed**2), torch.tensor(distance))) == pytest.approx(lost, rel=1e-5)
    assert float(rotation_loss(torch.tensor(1e9), torch.tensor(distance))) == pytest.approx(distance / 2, rel=1e-3)


class EasyLast(nn.Module):
    """The second layer's input has one direction, the first one's is random."""

    def __init__(self):
        super().__init__()
        self.hard, self.easy = nn.Linear(WIDTH, 4), nn.Linear(8, 2)
        self.passes = 0

    def forward(self, x):
        self.hard(x)
        self.passes += 1
        return self.easy(x[:, :1] * torch.arange(8.0))


def test_a_layer_that_has_converged_rests_and_the_pass_ends_before_it():
    module = EasyLast()
    result = subspaces(
        module, ["hard", "easy"], clustered_batches(0, count=40), components={"hard": COMPONENTS, "easy": 1},
        tolerance=1e-6, min_batches=8,
    )  # fmt: skip
    assert result.layers["hard"].rows == 40 * 48
    assert result.layers["easy"].rows == 8 * 48
    assert module.passes == 8


def test_one_bad_layer_keeps_the_reading_going():
    options = {"components": {"hard": COMPONENTS, "easy": 1}, "tolerance": 0.5, "min_batches": 4}
    loose = subspaces(EasyLast(), ["hard", "easy"], clustered_batches(0, 60), layer_tolerance=0.5, **options)
    strict = subspaces(EasyLast(), ["hard", "easy"], clustered_batches(0, 60), layer_tolerance=0.01, **options)
    assert loose.batches == 4 or loose.converged
    assert strict.batches > loose.batches and strict.converged


def test_a_model_whose_weights_are_moved_during_the_pass_runs_it_to_the_end():
    from accelerate import cpu_offload

    plain, batches = EasyLast(), clustered_batches(0, 6)
    moved = cpu_offload(EasyLast(), torch.device("cpu"))
    reference, found = (
        subspaces(module, ["hard"], batches, components=COMPONENTS, tolerance=0) for module in (plain, moved)
    )
    assert torch.equal(reference.layers["hard"].components, found.layers["hard"].components)
    assert (plain.passes, moved.passes) == (1, 6)  # the first pass finds out where it may end


@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes_layers(bits):
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    kind = bnb.nn.Linear4bit if bits == 4 else bnb.nn.Linear8bitLt
    layer = kind(WIDTH, 64, bias=False)
    layer.load_state_dict({"weight": torch.randn(64, WIDTH)})
    model, batches = nn.Sequential(layer.to("cpu"), nn.ReLU(), nn.Linear(64, 3)), clustered_batches(0, 6)
    found = subspaces(model, ["0", "2"], batches, components=4, tolerance=0)
    plain = subspaces(nn.Sequential(nn.Linear(WIDTH, 64)), ["0"], batches, components=4, tolerance=0)
    assert torch.allclose(found.layers["0"].components, plain.layers["0"].components, atol=1e-4)
