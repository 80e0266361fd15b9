"""What the page's server answers, to whom, and what it says where something is not as it should be."""

import io
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from evaluation.misses import misses
from gallery.health import health
from gallery.look import Gallery
from gallery.opened import open_artifact
from gallery.page.cache import ByteCache
from gallery.page.samples import LOWEST_SCORE, Tally
from gallery.page.shelf import Shelf
from served_page import COOKIE, TOKEN, served

NOBODY = {"Cookie": ""}


def id_of(finished, stage):
    return f"{stage}/{finished[0].path(stage).name}"


@pytest.fixture
def evaluated(finished):
    return id_of(finished, "evaluate")


@pytest.fixture
def sample(finished):
    return int(open_artifact(finished[0].path("evaluate")).samples[0])


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/api/shelf", "/picture/above?id=x&sample=0", "/nothing"])
@pytest.mark.parametrize("headers", [NOBODY, {"Cookie": f"{COOKIE}=another"}, {"Cookie": 'a="; b'}])
def test_nobody_gets_anything_without_the_token(page, path, headers):
    answer = page.ask(path, headers)
    assert answer.status == 403
    assert b"the link that `geomim view` printed" in answer.body
    assert page.ask(path + ("&" if "?" in path else "?") + "token=wrong", headers).status == 403


def test_the_link_leaves_a_cookie_and_no_token_in_the_address(page):
    answer = page.ask("/", NOBODY, token=TOKEN)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert f"{COOKIE}={TOKEN}" in cookie
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert page.ask("/api/shelf", NOBODY, token=TOKEN).status == 200  # for scripts


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8300", "127.0.0.1.evil.example", "", "[::1].evil"])
def test_another_name_of_this_machine_is_refused(page, host):
    assert page.ask("/api/shelf", {"Host": host}).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9", "LOCALHOST", "[::1]:8300", "[::1]"])
def test_this_machine_at_any_port_is_served(page, host):
    assert page.ask("/api/shelf", {"Host": host}).status == 200


def test_no_other_site_may_frame_the_page_or_script_it(page):
    headers = page.ask("/").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "script-src 'self';" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_shelf_has_every_stage(page, finished):
    entries = page.ask("/api/shelf").json["entries"]
    assert {entry["id"] for entry in entries} >= {
        id_of(finished, stage) for stage in ("ingest", "fit", "teacher", "depth", "pretrain", "finetune", "evaluate")
    }
    evaluate = next(entry for entry in entries if entry["stage"] == "evaluate")
    assert set(evaluate["scores"]) == {"mAP", "NDS"}


def test_pictures_decode_and_are_kept_by_the_browser(page, evaluated, sample):
    for what, size in (("CAM_FRONT", (320, 180)), ("above", (320, 320))):
        answer = page.ask(f"/picture/{what}", id=evaluated, sample=sample, size=320)
        assert answer.status == 200
        picture = Image.open(io.BytesIO(answer.body))
        assert picture.size == size
        assert Image.MIME[picture.format] == answer.headers["content-type"]
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20
        assert "max-age" in answer.headers["cache-control"]
        again = page.ask(
            f"/picture/{what}", {"If-None-Match": answer.headers["etag"]}, id=evaluated, sample=sample, size=320
        )
        assert (again.status, again.body) == (304, b"")


def test_what_is_chosen_is_drawn(page, finished, sample):
    id = id_of(finished, "evaluate")
    usual = page.ask("/picture/above", id=id, sample=sample, map="pca").body
    changes = ({"map": "activity"}, {"truth": 0}, {"points": 0}, {"dark": 1}, {"map": "channel", "channel": 1})
    bodies = {page.ask("/picture/above", id=id, sample=sample, **{"map": "pca"} | change).body for change in changes}
    assert len(bodies | {usual}) == len(changes) + 1


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"sample": 99999}, 404, "has samples 0 to"),
        ({"sample": 0}, 404, "predicts"),  # of train
        ({"id": "evaluate/nothing"}, 404, "not among what is shown"),
        ({"id": "../../etc"}, 404, "not among what is shown"),
        ({"map": "channel", "channel": 500}, 404, "has channels 0 to"),
        ({"sample": "x"}, 400, "sample: "),
        ({"size": 10**6}, 400, "size: "),
        ({"score": 2}, 400, "score: "),
    ],
)
def test_what_is_not_there_is_a_sentence(page, evaluated, sample, query, status, words):
    answer = page.ask("/picture/above", **{"id": evaluated, "sample": sample} | query)
    assert answer.status == status
    assert words in answer.json["error"]
    assert answer.headers["cache-control"] == "no-store"


def test_other_places_are_a_sentence(page, evaluated, sample):
    assert page.ask("/nothing").json["error"] == "there is no such place on this page"
    assert "no file of this page" in page.ask("/static/server.py").json["error"]
    assert page.ask("/static/..%2fserver.py").status == 404
    assert "is no camera" in page.ask("/picture/CAM_X", id=evaluated, sample=sample).json["error"]
    assert "is no picture of" in page.ask("/stored", id=evaluated, name="../manifest.json").json["error"]


def test_the_pictures_that_pretraining_left(page, finished):
    id = id_of(finished, "pretrain")
    assert "pretrain.png" in page.ask("/api/artifact", id=id).json["pictures"]
    assert Image.open(io.BytesIO(page.ask("/stored", id=id, name="pretrain.png").body)).format == "PNG"


def test_a_sample_in_figures(page, finished, evaluated, sample):
    told = page.ask("/api/sample", id=evaluated, sample=sample, score=0.05).json
    assert [len(row) for row in told["rows"]] == [3, 3]
    assert told["facts"] == Gallery(open_artifact(finished[0].path("evaluate"))).facts(sample, 0.05)
    assert [dashed for _, _, dashed in told["legend"]] == [False, False, True, True]


def test_health_is_what_inspect_says(page, finished):
    for stage in ("teacher", "pretrain"):
        seen = page.ask("/api/health", id=id_of(finished, stage)).json
        assert {name: odd for name, odd, _ in seen} == dict.fromkeys(health(finished[0].path(stage)))
        assert all(rows for _, _, rows in seen)
    with served(finished[0].dataroot) as bare:
        [entry] = bare.ask("/api/shelf").json["entries"]
        assert bare.ask("/api/health", id=entry["id"]).json == []


def test_counts_at_any_score_are_those_of_one_matching_each(finished):
    """The tally matches once for all scores."""
    gallery = Gallery(open_artifact(finished[0].path("fit")))
    tally = Tally(gallery)
    for score in (LOWEST_SCORE, 0.1, 0.13, 0.3):
        told = tally.at(score)
        while len(told["missed"]) < told["of"]:
            told = tally.at(score)
        each = [
            misses(gallery.opened.index, int(row), gallery.predictions(int(row)), score, always=0)
            for row in gallery.opened.samples
        ]
        assert told["missed"] == [len(one.missed) for one in each]
        assert told["false"] == [len(one.false) for one in each]
        assert told["right"] == [len(one.correct) for one in each]


def test_a_damaged_manifest(root):
    artifact = next((root / "teacher").glob("*"))
    (artifact / "manifest.json").write_text("{")
    with served(root) as page:
        entries = {entry["stage"]: entry for entry in page.ask("/api/shelf").json["entries"]}
        assert entries["teacher"]["damaged"]
        answer = page.ask("/api/artifact", id=entries["teacher"]["id"])
        assert answer.status == 422
        assert "manifest.json" in answer.json["error"]
        assert page.ask("/api/artifact", id=entries["evaluate"]["id"]).status == 200


def test_a_damaged_store_leaves_the_rest(root):
    for file in (root / "depth").glob("*/depth.zarr/u/c/*/*/*"):
        file.write_bytes(b"no shard")
    with served(root) as page:
        id = next(entry["id"] for entry in page.ask("/api/shelf").json["entries"] if entry["stage"] == "depth")
        problems = page.ask("/api/artifact", id=id).json["problems"]
        assert "geomim repair" in problems[0]
        seen = page.ask("/picture/CAM_FRONT", id=id, sample=0, depth=1)
        assert seen.status == 422
        assert "geomim repair" in seen.json["error"]
        assert page.ask("/picture/CAM_FRONT", id=id, sample=0, depth=0).status == 200


def test_a_dataroot_that_is_gone_and_one_in_its_place(finished, root, tmp_path):
    data = shutil.copytree(finished[0].dataroot, tmp_path / "data")
    images = next(data.glob("samples/CAM_FRONT"))
    with served(root, dataroot=data) as page:
        id = next(entry["id"] for entry in page.ask("/api/shelf").json["entries"] if entry["stage"] == "depth")
        assert page.ask("/api/artifact", id=id).json["problems"] == []
        assert page.ask("/picture/CAM_FRONT", id=id, sample=0).status == 200
        shutil.rmtree(images)
        gone = page.ask("/picture/CAM_FRONT", id=id, sample=1)
        assert gone.status == 422
        assert "is missing" in gone.json["error"]
        assert page.ask("/picture/CAM_BACK", id=id, sample=1).status == 200
        shutil.rmtree(data)
        assert f"The dataroot {data} is not there" in page.ask("/api/artifact", id=id).json["problems"][0]
        assert page.ask("/picture/above", id=id, sample=1, points=0).status == 200


def test_a_bug_is_a_sentence_too(page, evaluated, sample, monkeypatch, capfd):
    monkeypatch.setattr(Gallery, "above", lambda *words: 1 / 0)
    answer = page.ask("/picture/above", id=evaluated, sample=sample, size=333)
    assert answer.status == 500
    assert answer.json["error"].startswith("geomim itself failed here (ZeroDivisionError)")
    assert capfd.readouterr().err.count("Traceback") == 1


def test_many_at_once_get_the_same_as_one_alone(finished, sample):
    """All that is made on first use is made by several threads at once here."""
    id = id_of(finished, "evaluate")
    wanted = [(what, n) for n in (sample, sample + 1) for what in ("CAM_FRONT", "CAM_BACK", "above") for _ in range(3)]

    def body(page, what, n):
        return page.ask(f"/picture/{what}", id=id, sample=n, map="pca", depth=int(what != "above")).body

    with served(finished[0].root) as page, ThreadPoolExecutor(len(wanted)) as pool:
        together = list(pool.map(lambda one: body(page, *one), wanted))
    with served(finished[0].root) as page:
        assert together == [body(page, *one) for one in wanted]


def test_a_dataroot_is_opened_as_it_is(finished):
    with served(finished[0].dataroot) as page:
        [entry] = page.ask("/api/shelf").json["entries"]
        told = page.ask("/api/artifact", id=entry["id"]).json
        assert told["has"] == {"predictions": False, "depth": False, "channels": 0}
        assert page.ask("/picture/CAM_FRONT", id=entry["id"], sample=0).status == 200


def test_what_is_named_is_chosen_and_the_rest_of_its_root_is_there(finished):
    shelf = Shelf([finished[0].path("evaluate"), finished[0].path("teacher") / "bev.zarr"])
    assert shelf.chosen == [id_of(finished, "evaluate"), id_of(finished, "teacher")]
    assert {entry.stage for entry in shelf.entries().values()} > {"depth", "teacher"}


def test_two_roots_with_the_same_artifacts_have_names_of_their_own(finished, root):
    ids = list(Shelf([finished[0].root, root]).entries())
    assert len(ids) == len(set(ids))
    assert sum(id.endswith("~2") for id in ids) == len(ids) / 2


def test_what_cannot_be_opened(tmp_path, finished):
    (tmp_path / "empty").mkdir()
    (tmp_path / "root" / "depth" / "0123").mkdir(parents=True)
    for path, words in (
        (tmp_path / "nothing", "there is no such folder"),
        (tmp_path / "empty", "is no root of artifacts"),
        (tmp_path / "root", "holds no finished artifact"),
    ):
        with pytest.raises(UserError, match=words):
            Shelf([path])
    with pytest.raises(UserError, match=r"holds v1\.0-.*, not v9"):
        Shelf([finished[0].dataroot], version="v9")


def test_the_cache_keeps_what_was_used_last():
    cache = ByteCache(10)
    for key in "abc":
        cache.get(key, lambda: bytes(4))
    assert cache.held == 8
    assert cache.get("c", lambda: b"again") == bytes(4)
    assert cache.get("a", lambda: b"again") == b"again"


def test_the_cache_makes_once_what_several_want_and_forgets_failures():
    cache, made, go = ByteCache(100), [], threading.Event()

    def slow():
        made.append(1)
        go.wait(5)
        return b"it"

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(cache.get, "key", slow) for _ in range(4)]
        go.set()
        assert {one.result() for one in waiting} == {b"it"}
    assert len(made) == 1
    with pytest.raises(ZeroDivisionError):
        cache.get("other", lambda: 1 / 0)
    assert cache.get("other", lambda: b"now") == b"now"
