"""What is remembered about the inputs of a layer: sums that add up over batches and processes.

Products are float32 or bf16, sums over batches float64. Rows are shifted by the mean of the first batch before anything
is squared, so that inputs with a large mean lose no digits. All sums lie in one flat vector: two of them with the same
shift and test matrix merge by adding the vectors.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

MANY_ROWS = 1024  # batches of as many rows are thinned where factors are bf16: neighbouring positions are much alike
STRIDE = 2  # to every other row, each batch from another offset
POWER_STEPS = 3  # towards the leading eigenvectors of a large matrix, from those of the check before


@dataclass(frozen=True)
class Spectrum:
    """Leading eigenpairs of a covariance (or, uncentred, of a second moment).

    Attributes:
        components: (m, in) float64, orthonormal rows.
        eigenvalues: (m,) float64, descending.
        total_variance: sum of the eigenvalues over all directions.
        rows: how many rows went in.
    """

    components: Tensor
    eigenvalues: Tensor
    total_variance: float
    rows: int


@dataclass(frozen=True)
class BatchMoments:
    """The sums of one batch: `count` of rows, their sum (in,) and their second moments times the test matrix."""

    count: int
    row_sum: Tensor
    matrix: Tensor


class Moments(ABC):
    """Count, sum and sum of squares of shifted rows, and their second moments times a test matrix, (in, columns).

    `add` and `move` work on the sums since the last `absorb`, which are what a process has to share with others.

    Args:
        shift: (in,) float32, subtracted from every row; zeros when uncentred.
        columns: width of the matrix.
        center: whether eigenvectors are those of the covariance or of the raw second moment.
    """

    def __init__(self, shift: Tensor, columns: int, center: bool):
        self.shift, self.columns, self.center = shift, columns, center
        self.width = shift.numel()
        self.sums = torch.zeros(2 + self.width * (1 + columns), dtype=torch.float64, device=shift.device)
        self.recent = torch.zeros_like(self.sums)
        self.added = 0  # batches

    def thin(self, rows: Tensor) -> tuple[Tensor, float]:
        """Every other row of a large batch, and how many rows each of them stands for.

        Another offset for each batch, so that every position gets its turn.
        """
        sample = rows[self.added % STRIDE :: STRIDE] if len(rows) >= MANY_ROWS else rows
        return sample, len(rows) / max(len(sample), 1)

    def parts(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Views of a vector of sums: sum of rows (in,) and matrix (in, columns); count and squares come first."""
        return sums[2 : 2 + self.width], sums[2 + self.width :].view(self.width, self.columns)

    def add(self, rows: Tensor) -> BatchMoments:
        """Take in the rows of a batch as the layer received them, (n, in)."""
        squares, row_sum, matrix = self.products(rows)
        total_sum, total_matrix = self.parts(self.recent)
        self.added += 1
        self.recent[0] += len(rows)
        self.recent[1] += squares
        total_sum += row_sum
        total_matrix += matrix
        return BatchMoments(len(rows), row_sum, matrix)

    def products(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of squares, sum (in,) and moments times test matrix (in, columns) of shifted rows, in float32."""
        # Converted before the shift: a difference of mixed types takes several times as long.
        rows = rows - self.shift if rows.dtype == torch.float32 else rows.float().sub_(self.shift)
        flat = rows.flatten()
        return torch.dot(flat, flat), rows.sum(0), rows.T @ self.project(rows)

    def move(self, shift: Tensor) -> None:
        """Express the recent sums as if rows had been shifted by something else."""
        step = (self.shift - shift).double()  # is added to every row
        row_sum, matrix = self.parts(self.recent)
        count = self.recent[0].clone()
        self.recent[1] += 2 * step @ row_sum + count * step @ step
        matrix += torch.outer(step, self.project(row_sum) + count * self.project(step))
        matrix += torch.outer(row_sum, self.project(step))
        row_sum += count * step
        self.shift = shift

    def absorb(self) -> None:
        """Make the recent sums part of all."""
        self.sums += self.recent
        self.recent.zero_()

    @abstractmethod
    def project(self, rows: Tensor) -> Tensor:
        """Rows times the test matrix, (n, columns)."""

    def renew(self, spectrum: Spectrum) -> None:  # noqa: B027 - exact moments have nothing to renew
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

    @abstractmethod
    def eigenpairs(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Components (m, in) and eigenvalues (m,), descending, of the moments behind the matrix."""

    def mean(self) -> Tensor:
        """Mean of the shifted rows, (in,) float64; zeros when uncentred."""
        row_sum, _ = self.parts(self.sums)
        return row_sum / self.sums[0] if self.center else torch.zeros_like(row_sum)


class ExactMoments(Moments):
    """Every second moment, (in, in): exact, for narrow layers."""

    def __init__(self, shift: Tensor, center: bool):
        super().__init__(shift, shift.numel(), center)

    def project(self, rows: Tensor) -> Tensor:
        """The rows themselves: the test matrix is the identity."""
        return rows

    def eigenpairs(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """All of them."""
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)  # ascending
        return vectors.flip(1).T, values.flip(0).clamp_min(0)


class HalvedMoments(ExactMoments):
    """Every second moment of every other row, with bf16 factors: for layers of middling width.

    A sketch forgets what it has not seen to be important; where variance is spread over many directions that costs
    more than half of the rows do. Only the leading eigenpairs are computed, by power steps from the last ones.

    Args:
        shift: (in,) float32, subtracted from every row.
        columns: how many eigenpairs are computed.
        center: covariance or raw second moment.
        seed: of the first directions.
    """

    def __init__(self, shift: Tensor, columns: int, center: bool, seed: int):
        super().__init__(shift, center)
        generator = torch.Generator().manual_seed(seed)
        self.leading = torch.randn(self.width, columns, generator=generator, dtype=torch.float64).to(shift.device)

    def products(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As above, from every other row."""
        rows, weight = self.thin(rows)
        rows = rows.float() - self.shift
        flat, low = rows.flatten(), rows.bfloat16()
        return weight * torch.dot(flat, flat), weight * rows.sum(0), weight * (low.T @ low).float()

    def eigenpairs(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """The leading ones."""
        low = matrix.float()  # enough for a test matrix
        for _ in range(POWER_STEPS):
            self.leading = torch.linalg.qr(low @ self.leading.float()).Q.double()
        components, values = nystrom(matrix @ self.leading, self.leading)
        self.leading = components.T
        return components, values


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
        random = torch.randn(self.width, columns, generator=generator, dtype=torch.float64)
        self._set_test(torch.linalg.qr(random).Q.to(shift.device), torch.float32)

    def _set_test(self, test: Tensor, operands: torch.dtype) -> None:
        self.operands = test.to(operands)  # (in, q), what the products really use
        self.test = self.operands.double()  # orthonormal up to rounding

    def project(self, rows: Tensor) -> Tensor:
        """Rows times the test matrix, in the type of the rows."""
        return rows @ self.test.to(rows.dtype)

    def products(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As above; with bf16 factors from every other row."""
        if self.operands.dtype != torch.bfloat16:
            return super().products(rows)
        rows, weight = self.thin(rows)
        rows = rows.float() - self.shift
        flat, low = rows.flatten(), rows.bfloat16()
        matrix = low.T @ (low @ self.operands)
        return weight * torch.dot(flat, flat), weight * rows.sum(0), weight * matrix.float()

    def renew(self, spectrum: Spectrum) -> None:
        """Make the components the test matrix."""
        basis, row_sum = spectrum.components, self.parts(self.sums)[0]
        self._set_test(basis.T, torch.bfloat16 if self.low_precision else torch.float32)
        scale = max(spectrum.rows - self.center, 1)
        carried = basis.T @ (scale * spectrum.eigenvalues[:, None] * (basis @ self.test))  # (in, q)
        if self.center and spectrum.rows:
            carried += torch.outer(row_sum, self.project(row_sum) / spectrum.rows)
        self.parts(self.sums)[1].copy_(carried)

    def eigenpairs(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """The leading ones, by the Nyström formula."""
        return nystrom(matrix, self.test)


def nystrom(sketch: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenpairs of Y (Ωᵀ Y)⁺ Yᵀ, the best approximation of C that is known from Y = C Ω.

    A small shift of C, taken off again at the end, keeps the Cholesky factor away from singular cores.

    Args:
        sketch: Y, (in, q) float64.
        test: Ω, (in, q) float64, nearly orthonormal columns, strongest first.

    Returns:
        Eigenvectors (q, in) and eigenvalues (q,), descending.
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
