"""Fixtures: an S3 server on this machine, and an empty bucket of it that the environment leads to."""

import pytest

from object_store import credentials, new_bucket, s3_server


@pytest.fixture(scope="session")
def s3():
    """The port of a server."""
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    with s3_server() as port:
        yield port


@pytest.fixture
def bucket(s3, monkeypatch):
    """The URL of an empty object root."""
    for name, value in credentials(s3).items():
        monkeypatch.setenv(name, value)
    return new_bucket(s3)
