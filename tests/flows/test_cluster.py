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


def test_a_ray_address_where_nobody_answers(monkeypatch, capfd):
    pytest.importorskip("prefect_ray")
    monkeypatch.setattr("ray.util.client.worker.INITIAL_TIMEOUT_SEC", 0.5)
    with (
        pytest.raises(UserError, match=r"^cluster\.address is ray://127\.0\.0\.1:9, where no Ray cluster answers \("),
        cluster_of(ClusterConfig(runner="ray", address="ray://127.0.0.1:9")),
    ):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("runner", "address", "told"),
    [
        ("ray", "127.0.0.1:6379", "address 127.0.0.1:6379 is none of a Ray cluster: write ray://HOST:10001"),
        ("ray", "tcp://127.0.0.1:8786", "is none of a Ray cluster"),
        ("dask", "ray://127.0.0.1:10001", "is none of a Dask cluster: write tcp://HOST:8786"),
        ("dask", "tcp://head", "is none of a Dask cluster"),
    ],
)
def test_an_address_of_another_kind_is_refused(runner, address, told):
    with pytest.raises(ValueError, match=told):
        ClusterConfig(runner=runner, address=address)


@pytest.mark.skipif(importlib.util.find_spec("prefect_ray") is not None, reason="prefect_ray is installed")
def test_a_package_that_is_not_there():
    with (
        pytest.raises(UserError, match=r"^cluster\.runner is ray, and prefect_ray is not installed; docs/cluster\.md"),
        cluster_of(ClusterConfig(runner="ray")),
    ):
        pass
