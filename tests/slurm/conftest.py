"""One cluster for all SLURM tests, and the small runs of the end-to-end tests."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import checkpoint, mirror, small_run
from tests.slurm.cluster import Cluster, why_not

__all__ = ["checkpoint", "mirror", "small_run"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A running one-node cluster; the tests are skipped, visibly, where none can be started."""
    if reason := why_not():
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running
