"""WeLore (Jaiswal et al., arXiv:2407.11239): layers of low rank become their truncation, which alone is trained."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from baselines.full import Full
from eva_bench.methods.base import Initialisation, Method, method_config, target_layers
from eva_bench.methods.layer import Adapter, Factors
from eva_bench.methods.svd import normalised_spectrum, truncated_svd
from eva_bench.models.bundle import ModelBundle
from eva_bench.models.linear import weight_matrix
from eva_bench.system.errors import UserError
from eva_bench.system.progress import Bar


@method_config
class Reduction:
    """WeLore's rule: one threshold on the normalised singular values of all layers, and who loses enough by it.

    Attributes:
        reduction: share of all ranks below the threshold, which is chosen for it.
        layer_reduction: a layer that loses at least this share of its rank is a low-rank component.
    """

    reduction: float
    layer_reduction: float

    def __post_init__(self) -> None:
        for name in ("reduction", "layer_reduction"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"method.{name}={getattr(self, name):g} must be between 0 and 1.")

    def low_rank(self, bundle: ModelBundle) -> tuple[dict[str, int], float]:
        """The low-rank components of a model.

        Returns:
            Their ranks by the name of the layer, and the threshold.

        Raises:
            UserError: there are none.
        """
        layers, spectra = candidates(bundle), {}
        with Bar("singular values", quiet_s=2.0) as bar:
            for name, layer in layers.items():
                spectra[name] = torch.linalg.svdvals(weight_matrix(layer).detach().float()).cpu()
                bar(len(spectra), len(layers))
        kept, threshold = ranks(spectra, self.reduction)
        low = {name: r for name, r in kept.items() if 1 - r / len(spectra[name]) >= self.layer_reduction}
        if not low:
            raise UserError(
                f"No layer loses method.layer_reduction={self.layer_reduction:g} of its rank at "
                f"method.reduction={self.reduction:g}: there is no low-rank component to train."
            )
        return low, threshold

    def layer_rank(self, shape: tuple[int, int]) -> None:
        """The weights decide; see `Method.layer_rank`."""


@method_config
class WeLore(Reduction, Method):
    """W0 of a low-rank component becomes B A = (U_r S_r^{1/2}) (S_r^{1/2} V_r^T); what is cut off is lost.

    `components=low_rank` trains A and B and nothing else, `all` the weights of the other layers, too.
    """

    components: Literal["low_rank", "all"]
    reduces_base = True
    changes_function = True
    exports_adapter = False
    fixed_rank = False

    @property
    def seeded(self) -> bool:
        """Exact decompositions draw nothing."""
        return False

    def initialise(self, bundle: ModelBundle, calibration: Iterable[Any], seed: int) -> Initialisation:
        """Truncate the low-rank components; see `Method.initialise`."""
        low, threshold = self.low_rank(bundle)
        factors = {}
        with Bar("truncation", quiet_s=2.0) as bar:
            for name, rank in low.items():
                weight = weight_matrix(bundle.module.get_submodule(name)).detach()
                U, S, V = truncated_svd(weight, rank, method="exact")
                factors[name] = Factors(A=S.sqrt()[:, None] * V, B=U * S.sqrt())
                bar(len(factors), len(low))
        return Initialisation(factors=factors, facts={"threshold": threshold})

    def install(self, bundle: ModelBundle, initialisation: Initialisation) -> Adapter:
        """Put the factors in the place of the weights, in float32; see `Method.install`."""
        bundle.module.float()
        others = set(candidates(bundle)) - set(initialisation.factors)
        adapter = super().install(bundle, initialisation)
        for layer in adapter.layers.values():
            layer.base.weight.data.zero_()
        if self.components == "all":
            train_weights(bundle.module, others)
        return adapter


@method_config
class Components(Reduction, Full):
    """Full fine-tuning of the weights of WeLore's low-rank components, or of the other layers; nothing is truncated."""

    components: Literal["low_rank", "others"]

    def initialise(self, bundle: ModelBundle, calibration: Iterable[Any], seed: int) -> Initialisation:
        """Find the layers; see `Method.initialise`."""
        low, threshold = self.low_rank(bundle)
        chosen = [name for name in candidates(bundle) if (name in low) == (self.components == "low_rank")]
        return Initialisation(factors={}, facts={"threshold": threshold, "trained_layers": chosen})

    def install(self, bundle: ModelBundle, initialisation: Initialisation) -> Adapter:
        """Make the weights of these layers trainable, and the head; see `Method.install`."""
        adapter = super().install(bundle, initialisation)
        bundle.module.requires_grad_(False)
        for name in bundle.head:
            bundle.module.get_submodule(name).requires_grad_(True)
        train_weights(bundle.module, set(initialisation.facts["trained_layers"]))
        return adapter


def candidates(bundle: ModelBundle) -> dict[str, nn.Module]:
    """The target layers by name, without a language model's output layer, which WeLore leaves alone."""
    find = getattr(bundle.module, "get_output_embeddings", None)
    output = find() if find else None
    return {name: layer for name, layer in target_layers(bundle).items() if layer is not output}


def ranks(spectra: Mapping[str, Tensor], reduction: float) -> tuple[dict[str, int], float]:
    """The rank that every layer keeps, and the threshold on normalised singular values that keeps it.

    Args:
        spectra: singular values by layer, (min(out, in),) each.
        reduction: share of all singular values that is to fall below the threshold.
    """
    normalised = {name: normalised_spectrum(S.double()) for name, S in spectra.items()}
    together = torch.cat(list(normalised.values())).sort().values
    threshold = float(together[min(round(reduction * len(together)), len(together) - 1)])
    return {name: int((values >= threshold).sum()) for name, values in normalised.items()}, threshold


def train_weights(module: nn.Module, names: set[str]) -> None:
    """Make the weights of layers trainable."""
    for name in names:
        module.get_submodule(name).weight.requires_grad_(True)
