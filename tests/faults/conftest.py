"""The small runs of the end-to-end tests, for what goes wrong in them."""

from tests.e2e.conftest import checkpoint, command, few_texts_of_pretraining, mirror, places, small_run

__all__ = ["checkpoint", "command", "few_texts_of_pretraining", "mirror", "places", "small_run"]
