"""An object root: names, conditions and errors, against a real server, and with every kind of fault in between."""

import threading

import pytest

from common.errors import DataError, FileSystemError, UserError
from object_roots import at_once, bucket, remote, s3
from object_store import FAULTS, Faults, credentials, proxy
from storage import remote as module
from storage.checksum import FileSum
from storage.remote import Found, Remote, bare, checked_url, url_in

__all__ = ["bucket", "remote", "s3"]


def record(data):
    total = FileSum()
    total.add(data)
    return len(data), str(total)


def fetched(remote, name, data, tmp_path):
    with open(tmp_path / "fetched", "wb") as file:
        remote.fetch(name, file, record(data))
    return (tmp_path / "fetched").read_bytes()


@pytest.mark.parametrize("size", [0, 1, 5, 20_000_000])
def test_what_is_put_comes_back(remote, tmp_path, size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "sent").write_bytes(data)
    remote.put("depth/key/a b.zarr/c/0", tmp_path / "sent")
    assert fetched(remote, "depth/key/a b.zarr/c/0", data, tmp_path) == data
    assert {name: found.size for name, found in remote.objects("depth/key").items()} == {"a b.zarr/c/0": size}


def test_names_and_folders(remote):
    for name in ("depth/1/x", "depth/1/y/z", "depth/2/x", "teacher/3/x"):
        remote.put(name, b"1")
    assert remote.folders() == ["depth", "teacher"]
    assert remote.folders("depth") == ["1", "2"]
    assert sorted(remote.objects("depth/1")) == ["x", "y/z"]
    remote.delete("depth/1/x")
    remote.delete("depth/1/x")
    assert remote.get("depth/1/x") is None
    assert remote.get("depth/2/x")[0] == b"1"


def test_of_many_who_put_a_new_object_one_wins(remote):
    etags = at_once(lambda number: remote.put_new("x", f"{number}".encode()), 8)
    (winner,) = [number for number, etag in enumerate(etags) if etag]
    assert remote.get("x") == (f"{winner}".encode(), etags[winner])


def test_of_many_who_put_in_place_of_one_object_one_wins(remote):
    old = remote.put("x", b"old")
    etags = at_once(lambda number: remote.put_over("x", f"{number}".encode(), old), 8)
    (winner,) = [number for number, etag in enumerate(etags) if etag]
    assert remote.get("x") == (f"{winner}".encode(), etags[winner])
    assert remote.put_over("gone", b"1", old) is None


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_changes_nothing(bucket, s3, monkeypatch, tmp_path, kind):
    """Two in five requests break in this way, those that the store has carried out included."""
    faults, data = Faults(0.4, [kind], seed=1), bytes(range(256)) * 40
    with proxy(s3, faults) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", credentials(port)["AWS_ENDPOINT_URL"])
        remote = Remote(bucket)
        etag = remote.put_new("new", b"mine")
        assert etag is not None
        assert remote.put_new("new", b"another's") is None
        assert remote.put_over("new", b"mine again", etag) is not None
        assert remote.put_over("new", b"another's", etag) is None
        remote.put("d/x", data)
        assert remote.objects("d") == {"x": Found(len(data), bare(remote.put("d/x", data)))}
        for _ in range(3):
            assert fetched(remote, "d/x", data, tmp_path) == data
        remote.delete("d/x")
        assert remote.get("d/x") is None
    assert faults.seen[kind]


def test_what_is_not_as_written_is_said(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0.0,) * 3)
    remote = Remote(bucket)
    remote.put("x", b"other")
    with pytest.raises(DataError, match=rf"^{bucket}/x: has other bytes than were written; .*push --force"):
        fetched(remote, "x", b"bytes", tmp_path)
    with pytest.raises(DataError, match=f"^{bucket}/x: has 5 bytes, not 2; "):
        fetched(remote, "x", b"by", tmp_path)
    with pytest.raises(DataError, match=f"^{bucket}/y: is gone; "):
        fetched(remote, "y", b"by", tmp_path)


def test_errors_are_one_sentence(s3, bucket, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0.0,) * 2)
    with pytest.raises(UserError, match=r"^s3://nowhere-at-all/x: there is no such bucket; make it, or check the URL"):
        Remote("s3://nowhere-at-all/x").get("a")
    with pytest.raises(UserError, match="there is no such bucket"):
        Remote("s3://nowhere-at-all/x").put("a", b"1")
    with pytest.raises(UserError, match="there is no such bucket"):
        Remote("s3://nowhere-at-all/x").objects("a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(FileSystemError, match=rf"^{bucket}: 3 tries within \d+ s failed .*connect.*AWS_ENDPOINT_URL"):
        Remote(bucket).get("a")
    faults = Faults(1.0, ["500"])
    with proxy(s3, faults) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", credentials(port)["AWS_ENDPOINT_URL"])
        with pytest.raises(FileSystemError, match="503 Service Unavailable"):
            Remote(bucket).get("a")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UserError, match=r"^az://c/x: cannot be opened .*AZURE_STORAGE_ACCOUNT_NAME"):
        Remote("az://c/x").get("a")


def test_refused_credentials_are_named(bucket, monkeypatch):
    import http.server

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<Error><Code>InvalidAccessKeyId</Code></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(
            UserError, match=r"access is refused \(403 Forbidden InvalidAccessKeyId\); check AWS_ACCESS"
        ):
            Remote(bucket).get("a")
        server.shutdown()


def test_urls():
    assert checked_url("s3://bucket/a/b/") == "s3://bucket/a/b"
    assert url_in("s3:/bucket/a") == "s3://bucket/a"
    assert url_in("file:/tmp/x") == "file:///tmp/x"
    assert url_in("/tmp/x") is None
    for wrong in ("s3://", "ftp://a/b", "/tmp/x", "s3://bucket//x", "s3://b/x?y", "bucket/x"):
        with pytest.raises(UserError, match=r"is no object root; write s3://BUCKET/PREFIX"):
            checked_url(wrong)
