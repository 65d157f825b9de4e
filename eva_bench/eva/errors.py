"""The engine's own error."""

from eva_bench.system.errors import UserError


class EvaError(UserError, ValueError):
    """The initialisation cannot be computed from this input; the message names the layer and the way out."""
