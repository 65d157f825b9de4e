"""What is remembered about the inputs of a layer: sums that add up over batches and processes.

Products are float32, sums over batches float64. Rows are shifted by the mean of the first batch before anything is
squared, so that inputs with a large mean lose no digits. All sums lie in one flat vector: two of them with the same
shift and test matrix merge by adding the vectors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spectrum:
    """Leading eigenpairs of a covariance (or, uncentred, of a second moment).

    `components` (m, in) float64 orthonormal rows, `eigenvalues` (m,) descending, `total_variance` their sum over
    all directions, `rows` how many rows went in.
    """

    components: Tensor
    eigenvalues: Tensor
    total_variance: float
    rows: int


class Moments:
    """Count, sum and sum of squares of shifted rows, and their second moments times a test matrix, (in, columns).

    `add` and `move` work on the sums since the last `absorb`, which are what a process has to share with others.

    Args:
        shift: (in,) float32, subtracted from every row by the caller; zeros when uncentred.
        columns: width of the matrix.
        center: whether eigenvectors are those of the covariance or of the raw second moment.
    """

    def __init__(self, shift: Tensor, columns: int, center: bool):
        self.shift, self.columns, self.center = shift, columns, center
        self.operands = torch.float32
        self.width = shift.numel()
        self.sums = torch.zeros(2 + self.width * (1 + columns), dtype=torch.float64, device=shift.device)
        self.recent = torch.zeros_like(self.sums)

    def parts(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Views of a vector of sums: sum of rows (in,) and matrix (in, columns); count and squares come first."""
        row_sum, matrix = sums[2:].split([self.width, self.width * self.columns])
        return row_sum, matrix.view(self.width, self.columns)

    def add(self, rows: Tensor) -> Tensor:
        """Take in shifted float32 rows, (n, in); returns them in the type in which products are computed."""
        row_sum, matrix = self.parts(self.recent)
        flat = rows.flatten()
        self.recent[0] += len(rows)
        self.recent[1] += torch.dot(flat, flat)
        row_sum += rows.sum(0)
        rows = rows.to(self.operands)
        matrix += rows.T @ self.project(rows)
        return rows

    def move(self, shift: Tensor) -> None:
        """Express the recent sums as if rows had been shifted by something else."""
        step = (self.shift - shift).double()  # is added to every row
        row_sum, matrix = self.parts(self.recent)
        count = self.recent[0].clone()
        self.recent[1] += 2 * step @ row_sum + count * step @ step
        matrix += torch.outer(step, self.project(row_sum + count * step)) + torch.outer(row_sum, self.project(step))
        row_sum += count * step
        self.shift = shift

    def absorb(self) -> None:
        """Make the recent sums part of all."""
        self.sums += self.recent
        self.recent.zero_()

    def project(self, rows: Tensor) -> Tensor:
        """Rows times the test matrix, (n, columns)."""
        raise NotImplementedError

    def renew(self, spectrum: Spectrum) -> None:
        """Improve the test matrix by the spectrum of everything absorbed; nothing to do where there is none."""

    def spectrum(self) -> Spectrum:
        """Eigenpairs of everything absorbed."""
        row_sum, matrix = self.parts(self.sums)
        rows, squares = int(self.sums[0]), self.sums[1]
        divisor = max(rows - 1, 1) if self.center else max(rows, 1)
        if self.center and rows:
            squares = squares - row_sum @ row_sum / rows
            matrix = matrix - torch.outer(row_sum, self.project(row_sum) / rows)
        components, values = self.eigenpairs(matrix / divisor)
        return Spectrum(components, values, float(squares) / divisor, rows)

    def eigenpairs(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Components (m, in) and eigenvalues (m,), descending, of the moments behind the matrix."""
        raise NotImplementedError

    def mean(self) -> Tensor:
        """What to subtract from shifted rows before comparing them with components, (in,) float32."""
        row_sum, _ = self.parts(self.sums)
        return (row_sum / self.sums[0]).float() if self.center else torch.zeros_like(self.shift)


class ExactMoments(Moments):
    """Every second moment, (in, in): exact, for narrow layers."""

    def __init__(self, shift: Tensor, center: bool):
        super().__init__(shift, shift.numel(), center)

    def project(self, rows: Tensor) -> Tensor:
        return rows

    def eigenpairs(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)  # ascending
        return vectors.flip(1).T, values.flip(0).clamp_min(0)


class SketchedMoments(Moments):
    """Second moments times a test matrix, Y = Xᵀ X Ω (in, q): one pass, memory linear in the width.

    The Nyström formula turns Y into the eigenpairs of a rank-q approximation, which is the better the closer Ω is to
    the leading eigenvectors. `renew` therefore replaces Ω by the current eigenvectors, a power step that costs no
    second pass: what was seen before is carried over through its approximation.

    With `low_precision` the factors are bf16 from then on. Every rounding error is relative to an entry of one column,
    and columns are eigenvectors by then, so weak directions are not drowned by strong ones; they would be with the
    random first test matrix.
    Source: Halko, Martinsson & Tropp 2011, section 5.5 (single pass); Tropp et al. 2017, "Fixed-rank approximation
    of a positive-semidefinite matrix from streaming data", algorithm 3.
    """

    def __init__(self, shift: Tensor, columns: int, center: bool, seed: int, low_precision: bool = False):
        super().__init__(shift, columns, center)
        self.low_precision = low_precision
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(self.width, columns, generator=generator, dtype=torch.float64)
        self._set_test(torch.linalg.qr(start).Q.to(shift.device), torch.float32)

    def _set_test(self, test: Tensor, operands: torch.dtype) -> None:
        self.operands = operands
        self.test = test.to(operands).double()  # (in, q), what the products really use; orthonormal up to rounding

    def project(self, rows: Tensor) -> Tensor:
        return rows @ self.test.to(rows.dtype)

    def renew(self, spectrum: Spectrum) -> None:
        basis, row_sum = spectrum.components, self.parts(self.sums)[0]
        self._set_test(basis.T, torch.bfloat16 if self.low_precision else torch.float32)
        scale = max(spectrum.rows - self.center, 1)
        carried = basis.T @ (scale * spectrum.eigenvalues[:, None] * (basis @ self.test))  # (in, q)
        if self.center and spectrum.rows:
            carried += torch.outer(row_sum, self.project(row_sum) / spectrum.rows)
        self.parts(self.sums)[1].copy_(carried)

    def eigenpairs(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        return nystrom(matrix, self.test)


def nystrom(sketch: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenpairs of Y (Ωᵀ Y)⁺ Yᵀ, the best approximation of C that is known from Y = C Ω.

    `sketch` Y and `test` Ω are (in, q) float64, Ω with nearly orthonormal columns, strongest first. Returns (q, in) and
    (q,) descending. A small shift of C, taken off again at the end, keeps the Cholesky factor away from singular cores.
    """
    size = torch.linalg.matrix_norm(sketch).clamp_min(1e-20)
    for share in (1e-10, 1e-7, 1e-5, 1e-3, 1e-1):
        shifted = sketch + share * size * test
        core = test.T @ shifted  # (q, q) symmetric but for rounding, which is smaller above the diagonal
        lower, failed = torch.linalg.cholesky_ex(core.triu() + core.triu(1).T)
        if not failed:
            break
    factor = torch.linalg.solve_triangular(lower, shifted.T, upper=False)  # (q, in)
    # Singular vectors by way of the Gram matrix, several times faster than an SVD. The shift bounds its condition, so
    # the rows below are orthonormal to 1e-6; one Cholesky QR makes that exact, the strongest row staying where it is.
    values, vectors = torch.linalg.eigh(factor @ factor.T)
    components = vectors.flip(1).T @ factor / values.flip(0).clamp_min(1e-300).sqrt()[:, None]
    lower = torch.linalg.cholesky(components @ components.T)
    components = torch.linalg.solve_triangular(lower, components, upper=False)
    return components, (values.flip(0) - share * size).clamp_min(0)
