"""Full fine-tuning, the reference that every paper reports."""

from eva_bench.methods.base import Initialisation, Method, method_config
from eva_bench.methods.layer import Adapter


@method_config
class Full(Method):
    """Train every weight of the model, in float32; there is no adapter to export."""

    def initialise(self, bundle, calibration, seed):
        return Initialisation(factors={})

    def install(self, bundle, start):
        return Adapter.whole_model(bundle.module)
