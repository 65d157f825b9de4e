"""Second moments and sketches: accuracy with a large mean, merging, power steps."""

import pytest
import torch

from eva_bench.eva.moments import ExactMoments, SketchedMoments, nystrom


def make_rows(n: int = 4000, width: int = 48, decay: float = 1.5, mean: float = 0.0, seed: int = 0) -> torch.Tensor:
    """Rows with a known kind of spectrum in a random basis, (n, width) float32."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    scales = torch.arange(1, width + 1).pow(-decay / 2)
    return (torch.randn(n, width, generator=generator) * scales) @ basis + mean


def covariance(rows: torch.Tensor) -> torch.Tensor:
    return torch.cov(rows.double().T)


def fill(statistic, rows: torch.Tensor, batch: int = 500):
    for part in rows.split(batch):
        statistic.add(part)
        statistic.absorb()
    return statistic


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_second_moment_is_the_covariance_even_with_a_large_mean(mean):
    rows = make_rows(mean=mean)
    spectrum = fill(ExactMoments(rows[:500].mean(0), center=True), rows).spectrum()
    values = torch.linalg.eigvalsh(covariance(rows)).flip(0)
    assert spectrum.rows == len(rows)
    assert torch.allclose(spectrum.eigenvalues, values, rtol=1e-4, atol=1e-7)
    assert spectrum.total_variance == pytest.approx(float(values.sum()), rel=1e-4)


def test_uncentred_moments_contain_the_mean():
    rows = make_rows(mean=3.0)
    spectrum = fill(ExactMoments(torch.zeros(48), center=False), rows).spectrum()
    moment = rows.double().T @ rows.double() / len(rows)
    assert torch.allclose(spectrum.eigenvalues, torch.linalg.eigvalsh(moment).flip(0), rtol=1e-3)


def test_sketch_with_power_steps_captures_nearly_everything():
    rows = make_rows(n=8000, width=128, decay=1.0)
    sketch = SketchedMoments(rows[:500].mean(0), 32, center=True, seed=0)
    for index, part in enumerate(rows.split(500)):
        if index in (2, 4, 6, 9, 14):
            sketch.renew(sketch.spectrum())
        sketch.add(part)
        sketch.absorb()
    moments = covariance(rows)
    components = sketch.spectrum().components[:16]
    best = torch.linalg.eigvalsh(moments).flip(0)[:16].sum()
    assert (components @ moments * components).sum() / best > 0.995
    assert torch.allclose(components @ components.T, torch.eye(16, dtype=torch.float64), atol=1e-10)


@pytest.mark.parametrize("kind", ["exact", "sketch"])
def test_shares_of_several_processes_add_up(kind):
    rows = make_rows(mean=2.0)

    def make(shift):
        return ExactMoments(shift, True) if kind == "exact" else SketchedMoments(shift, 24, True, seed=0)

    together = fill(make(rows[:500].mean(0)), rows).spectrum()
    first, second = make(rows[:500].mean(0)), make(rows[2000:2500].mean(0))
    first.add(rows[:2000])
    second.add(rows[2000:])
    second.move(first.shift)
    first.recent += second.recent
    first.absorb()
    merged = first.spectrum()
    assert torch.allclose(merged.eigenvalues[:16], together.eigenvalues[:16], rtol=1e-4)
    assert merged.total_variance == pytest.approx(together.total_variance, rel=1e-5)


def test_nystrom_is_exact_for_a_matrix_of_low_rank():
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    matrix = factor @ factor.T
    test = torch.linalg.qr(torch.randn(20, 6, generator=generator, dtype=torch.float64)).Q
    components, values = nystrom(matrix @ test, test)
    assert torch.allclose(components.T * values @ components, matrix, atol=1e-7)


def test_constant_rows_have_no_variance_and_break_nothing():
    sketch = fill(SketchedMoments(torch.ones(32), 8, True, seed=0), torch.ones(100, 32))
    spectrum = sketch.spectrum()
    assert torch.isfinite(spectrum.components).all() and spectrum.total_variance == 0


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e8])
@pytest.mark.parametrize("kind", ["zero", "constant", "one direction", "fewer rows than columns"])
@pytest.mark.parametrize("low_precision", [False, True])
def test_a_sketch_of_degenerate_rows_stays_finite_and_orthonormal(kind, scale, low_precision):
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(64, generator=generator)
    rows = {
        "zero": torch.zeros(40, 64),
        "constant": direction.expand(40, 64),
        "one direction": torch.randn(40, 1, generator=generator) * direction,
        "fewer rows than columns": torch.randn(6, 64, generator=generator),
    }[kind] * scale
    sketch = SketchedMoments(rows[0].bfloat16().float(), 24, center=True, seed=0, low_precision=low_precision)
    for _ in range(3):
        sketch.add(rows)
        sketch.absorb()
        spectrum = sketch.spectrum()
        sketch.renew(spectrum)
    components = spectrum.components
    assert torch.isfinite(components).all() and torch.isfinite(spectrum.eigenvalues).all()
    assert torch.allclose(components @ components.T, torch.eye(24, dtype=torch.float64), atol=1e-8)
    if kind == "one direction":
        unit = direction.double() / direction.double().norm()
        assert float((components[0] @ unit).abs()) > 0.999
