"""Two gloo processes give what one process gives."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from eva_bench.eva import EvaError
from tests.eva import subspaces


def make_batches(count: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scales = torch.arange(1, 41).pow(-1.0)
    return [torch.randn(100, 40, generator=generator) * scales + 5 for _ in range(count)]


def solve(batches, solver: str):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 24), nn.Tanh(), nn.Linear(24, 2))
    return subspaces(model, ["0", "2"], batches, components=4, solver=solver, tolerance=0)


class Branches(nn.Module):
    """A batch that begins with a negative number does not reach the first layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(40, 4), nn.Linear(40, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(2 * x) + (self.first(x) if x[0, 0] > 0 else 0)


def solve_branches(sign: int) -> str:
    """What one is told where the batches of a process have this sign."""
    try:
        subspaces(Branches(), ["first", "second"], [sign * batch.abs() for batch in make_batches()], components=4)
    except EvaError as error:
        return str(error)
    return "solved"


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {solver: solve(make_batches()[rank::2], solver) for solver in ("exact", "sketch")}
    uneven = solve(make_batches()[:9] if rank else make_batches()[9:], "exact")  # 3 batches here, 9 there
    try:
        solve([] if rank else make_batches(), "exact")
        refused = False
    except EvaError:
        refused = True
    told = solve_branches(-1 if rank else 1)
    torch.save({**results, "uneven": uneven, "refused": refused, "told": told}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("gloo")
    mp.spawn(worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize("kind", ["exact", "uneven", "sketch"])
def test_two_processes_equal_one(two_processes, kind):
    alone = solve(make_batches(), "sketch" if kind == "sketch" else "exact")
    for process in two_processes:
        for name, layer in process[kind].layers.items():
            reference = alone.layers[name]
            assert layer.rows == reference.rows == 1200 and process[kind].batches == 12
            tolerance = 2e-2 if kind == "sketch" else 1e-4  # a sketch renews its test matrix at slightly other points
            assert torch.allclose(layer.components, reference.components, atol=tolerance)
            assert torch.allclose(layer.eigenvalues, reference.eigenvalues, rtol=tolerance)


def test_both_processes_hold_the_same_bytes(two_processes):
    for kind in ("exact", "uneven", "sketch"):
        first, second = (process[kind].layers for process in two_processes)
        assert all(torch.equal(first[name].components, second[name].components) for name in first)


def test_an_empty_share_stops_every_process(two_processes):
    assert all(process["refused"] for process in two_processes)


def test_processes_that_reach_other_layers_stop_with_one_sentence(two_processes):
    assert all("reach other layers" in process["told"] for process in two_processes)
