"""Full fine-tuning, the reference that every paper reports."""

from collections.abc import Iterable
from typing import Any

from eva_bench.methods.base import Initialisation, Method, method_config
from eva_bench.methods.layer import Adapter
from eva_bench.models.bundle import ModelBundle


@method_config
class Full(Method):
    """Train every weight of the model, in float32; there is no adapter to export."""

    trained = ()
    exports_adapter = False

    def layer_rank(self, shape: tuple[int, int]) -> int | None:
        """All that the layer has; see `Method.layer_rank`."""
        return min(shape)

    def initialise(self, bundle: ModelBundle, calibration: Iterable[Any], seed: int) -> Initialisation:
        """Nothing to compute."""
        return Initialisation(factors={})

    def install(self, bundle: ModelBundle, initialisation: Initialisation) -> Adapter:
        """Make every parameter trainable; see `Method.install`."""
        return Adapter.whole_model(bundle.module, bundle.targets)
