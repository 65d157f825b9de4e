"""The small runs of the end-to-end tests, for suites."""

from tests.e2e.conftest import checkpoint, command, mirror, places, small_run

__all__ = ["checkpoint", "command", "mirror", "places", "small_run"]
