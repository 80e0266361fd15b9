"""A cluster that is not there, or whose packages are not, is said in a sentence. A run on one: e2e/test_cluster.py."""

import importlib.util

import pytest

from common.errors import UserError
from flows.cluster import cluster_of
from tasks.engine.cluster import ClusterConfig


def test_without_one_the_flow_has_its_own():
    with cluster_of(None) as cluster:
        assert cluster is None


def test_an_address_where_nobody_answers():
    dask = pytest.importorskip("dask")
    pytest.importorskip("prefect_dask")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(
            UserError, match=r"^cluster\.address is tcp://127\.0\.0\.1:9, where no Dask cluster answers \(.+\); "
        ),
        cluster_of(ClusterConfig(runner="dask", address="tcp://127.0.0.1:9")),
    ):
        pass


@pytest.mark.skipif(importlib.util.find_spec("prefect_ray") is not None, reason="prefect_ray is installed")
def test_a_package_that_is_not_there():
    with (
        pytest.raises(UserError, match=r"^cluster\.runner is ray, and prefect_ray is not installed; docs/cluster\.md"),
        cluster_of(ClusterConfig(runner="ray")),
    ):
        pass
