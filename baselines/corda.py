"""CorDA (Yang et al., arXiv:2406.05223): the weight is decomposed in the light of its inputs' second moments."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from eva_bench.eva.inputs import InputTap, RowSelector
from eva_bench.eva.reader import BatchReader
from eva_bench.methods.base import Initialisation, LowRankMethod, method_config
from eva_bench.methods.layer import Factors
from eva_bench.methods.svd import truncated_svd
from eva_bench.models.batches import default_row_mask, trim_padding
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.system.errors import UserError
from eva_bench.system.progress import Bar

DAMPING = 0.01  # of the mean diagonal, doubled until the inverse is one; authors' code and PEFT
INVERSE_ERROR = 0.05


@method_config
class CorDA(LowRankMethod):
    """W0 C = U S V^T with C the inputs' second moments; B = U_k S_k^{1/2}, A = S_k^{1/2} V_k^T C^{-1}.

    k are the `rank` largest components (`part=largest`, instruction-previewed) or the smallest (`part=smallest`,
    knowledge-preserved). S is divided by the scale; base = W0 - scale * B A.
    """

    part: Literal["largest", "smallest"]
    batches: int
    svd: Literal["randomised", "exact"]
    uses_data = True
    reduces_base = True

    def initialise(self, bundle: ModelBundle, calibration: Iterable[Any], seed: int) -> Initialisation:
        """Second moments from the calibration batches, then one decomposition a layer; see `Method.initialise`."""
        self.check(bundle)
        tap = InputTap(bundle.module, bundle.targets)
        moments, read = self._second_moments(tap, bundle, calibration)
        factors: dict[str, Factors] = {}
        most = DAMPING
        with Bar("decompositions", quiet_s=2.0) as bar:
            for leader in list(moments):
                matrix, inverse, damping = damped_inverse(moments.pop(leader), leader)
                most = max(most, damping)
                for index, name in enumerate(bundle.targets):
                    if tap.groups[name] == leader:
                        weight = weight_matrix(bundle.module.get_submodule(name)).detach().float()
                        factors[name] = self._factors(weight, matrix, inverse, seed + index)
                        bar(len(factors), len(bundle.targets))
        ordered = {name: factors[name] for name in bundle.targets}
        return Initialisation(factors=ordered, facts=read | {"damping": most})

    def _second_moments(
        self, tap: InputTap, bundle: ModelBundle, calibration: Iterable[Any]
    ) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Mean over examples of X^T X, (in, in) float32, for every distinct input; and the facts of the reading."""
        moments: dict[str, Tensor] = {}
        sizes: list[int] = []  # examples of each batch
        row_mask = bundle.row_mask or partial(default_row_mask, use_label_mask=False)

        def rows_of(batch: dict[str, Tensor]) -> Callable[[str, Tensor], Tensor]:
            sizes.append(len(next(iter(batch.values()))))
            masks = row_mask(batch)
            masks = [] if masks is None else [masks] if isinstance(masks, Tensor) else masks
            return partial(normalised_rows, masks=masks, examples=sizes[-1])

        def consume(leader: str, rows: Tensor) -> None:
            moments[leader] = moments.get(leader, 0) + rows.T @ rows

        batches = calibration if bundle.row_mask else map(trim_padding, calibration)
        reader = BatchReader(tap, batches, select_rows=rows_of)
        with tap, Bar("calibration batches", quiet_s=2.0) as bar:
            while reader.count < self.batches and reader.read(consume):
                bar(reader.count, self.batches)
        if missing := tap.missing():
            raise UserError(f"layer '{missing[0]}' never ran in the forward pass: its inputs cannot be seen.")
        means = {leader: total / sum(sizes) for leader, total in moments.items()}
        return means, {"batches": reader.count, "examples": sum(sizes)}

    def _factors(self, weight: Tensor, moments: Tensor, inverse: Tensor, seed: int) -> Factors:
        """Factors of one layer from its weight (out, in) and damped second moments (in, in)."""
        product = weight @ moments  # (out, in)
        if self.part == "largest":
            U, S, V = truncated_svd(product, self.rank, method=self.svd, seed=seed)
        else:
            U, S, V = truncated_svd(product, min(product.shape), method="exact")
            U, S, V = U[:, -self.rank :], S[-self.rank :], V[-self.rank :]
        root = (S / self.scale).sqrt()  # (r,)
        return Factors(A=root[:, None] * (V @ inverse), B=U * root, scale=self.scale)


def normalised_rows(name: str, x: Tensor, *, masks: Sequence[Tensor], examples: int) -> Tensor:
    """Rows of a layer's input that count, those of each example divided by the absolute value of their largest entry.

    Where it cannot be told whose a row is (an expert gets the tokens that a router chose), the batch is one example.

    Args:
        name: of the layer.
        x: its input, (..., in).
        masks: of the batch, as for `RowSelector`.
        examples: of the batch.

    Returns:
        (n, in), float32.

    Source: authors' code and PEFT, which read one example at a time.
    """
    n = x.shape[:-1].numel()
    in_order = x.ndim > 2 or n == examples or any(n == mask.numel() for mask in masks)
    share = n // examples if in_order and n % examples == 0 else max(n, 1)  # rows of one example
    select = RowSelector(masks)
    rows = select(name, x).float()
    kept = select(name, torch.arange(n, device=x.device).view(*x.shape[:-1], 1))[:, 0]  # their places in the batch
    largest = rows.new_full((n,), -torch.inf).index_copy(0, kept, rows.amax(dim=1)).view(-1, share).amax(dim=1)
    divisor = torch.where(largest == 0, 1.0, largest.abs())  # (examples,); nothing above zero: as it is
    return rows / divisor.repeat_interleave(share)[kept, None]


def damped_inverse(moments: Tensor, name: str) -> tuple[Tensor, Tensor, float]:
    """Second moments made invertible, and their inverse.

    Args:
        moments: (in, in), without full rank where there were fewer rows than inputs.
        name: of the layer, for the error.

    Returns:
        The damped matrix, its inverse, and the damping in units of the mean diagonal.

    Raises:
        UserError: the inputs of the layer are all zero or not finite.
    """
    size = float(moments.diagonal().mean())
    if not 0 < size < float("inf"):
        raise UserError(f"the inputs of layer '{name}' are zero or not finite: CorDA has nothing to start from.")
    identity = torch.eye(len(moments), device=moments.device)
    damping = DAMPING
    while True:
        damped = moments + damping * size * identity
        inverse = torch.linalg.inv(damped)
        if torch.dist(damped @ inverse, identity) < INVERSE_ERROR:
            return damped, inverse, damping
        damping *= 2
