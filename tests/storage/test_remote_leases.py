"""Parts of one artifact, written on several machines that meet in an object root: each once, whoever dies or sleeps."""

import pickle
import time
from contextlib import ExitStack

import numpy as np
import pytest

from common.errors import UserError
from object_roots import at_once, bucket, s3
from object_store import Faults, credentials, proxy
from storage import remote_leases
from storage.artifact import Artifact
from storage.boxes import BoxStore, open_boxes
from storage.leases import FINISH, Changed, LeaseLost
from storage.manifest import Recipe, shards
from storage.mirror import mirror_at
from storage.part_board import PartBoard
from storage.places import parts_of, place_of
from storage.remote import Remote
from storage.remote_leases import RemoteLeases
from storage.sent_parts import noted
from storage.store import check
from storage.transfer import is_sent, manifest_there, pull, push

__all__ = ["bucket", "s3"]

RECIPE = Recipe(stage="teacher", version=1, config={}, inputs={})
STAGE, KEY = "teacher", RECIPE.key
TOKENS = [f"s{i}" for i in range(7)]
PARTS = [0, 1, 2, 3]
STORE = "boxes.zarr"


class Machine:
    """A mirror with the artifact begun in it, and what one process there does."""

    def __init__(self, url, seconds=60.0, part_size=2):
        self.mirror = mirror_at(url)
        self.artifact = Artifact(self.mirror.root, STAGE, KEY)
        self.seconds, self.part_size, self.waits = seconds, part_size, []

    def __enter__(self):
        self.artifact.begin(RECIPE)
        self.store = BoxStore(self.artifact.path / STORE, TOKENS, self.part_size)
        self.leases = RemoteLeases(self.mirror, self.artifact, "geomim teacher", self.waits.append, self.seconds)
        self.leases.__enter__()
        try:
            self.board = PartBoard([self.store.store], self.leases)
        except BaseException:
            self.leases.__exit__()
            raise
        return self

    def __exit__(self, *error):
        self.leases.__exit__(*error)

    def write(self, part, lease):
        self.store.write(part, [box(sample) for sample in self.store.store.samples(part)], lease.check)

    def work(self, most=9):
        """Write parts, as long as there are any; their numbers."""
        written = []
        while len(written) < most and (claimed := self.board.claim()):
            self.write(*claimed)
            self.board.keep(claimed[0])
            written.append(claimed[0])
        return written

    def see(self):
        """The parts that are newly done."""
        self.leases._next_look = 0.0
        return list(self.board.newly_done())

    def finish(self, **summary):
        assert self.leases.claim([FINISH])
        self.artifact.finish(RECIPE, summary, 1.0, {})
        self.leases.finished()


def box(sample):
    return np.full((1, 9), sample, np.float32), np.ones(1, np.float32), np.zeros(1, np.int8)


@pytest.fixture
def machine(bucket, tmp_path, monkeypatch):
    """Makes machines, each with a cache of its own."""

    def make(**settings):
        monkeypatch.setenv("GEOMIM_CACHE", str(tmp_path / f"machine{len(made)}"))
        made.append(Machine(bucket, **settings))
        return made[-1]

    made = []
    return make


def values(artifact):
    store = BoxStore(artifact.path / STORE, TOKENS, open_boxes(artifact.path / STORE).part_size)
    return [float(store.read(sample)[0][0, 0]) for sample in range(len(TOKENS))]


def objects(remote):
    return remote.objects(place_of(STAGE, KEY))


def test_two_machines_write_each_part_once_and_the_last_sends_it(machine, tmp_path):
    with machine() as a, machine() as b:
        written = [part for machine in (a, b, a, b) for part in machine.work(1)]
        assert sorted(written) == PARTS
        assert [a.work(), b.work()] == [[], []]
        assert [a.see(), b.see()] == [PARTS, PARTS]
        assert a.artifact.progress() == (4, 4)
        shard_of = [machine.store.store.arrays["box"].file(written[0]) for machine in (a, b)]
        assert [file.exists() for file in shard_of] == [True, False]
        b.finish()
    manifest = manifest_there(b.mirror.remote, STAGE, KEY)
    assert len(shards(manifest)) == 3 * len(PARTS)
    assert a.mirror.remote.objects(parts_of(STAGE, KEY)) == {}
    assert b.artifact.is_intact()
    assert not noted(b.artifact.path)
    assert values(b.artifact) == list(range(7))
    assert check(b.artifact.path) == []
    whole, _ = pull(b.mirror.remote, STAGE, KEY, tmp_path / "whole")
    assert values(whole) == list(range(7))
    assert check(whole.path) == []


@pytest.mark.parametrize("another", [False, True], ids=["alone", "after another has"])
def test_who_was_killed_while_it_sent_sends(machine, another):
    """It had finished the artifact, with shards that are in the object root alone."""
    with machine() as a, machine() as b:
        a.work(2)
        b.work()
        b.see()
        b.leases.claim([FINISH])
        b.artifact.finish(RECIPE, {}, 1.0, {})
    assert b.artifact.is_intact()
    assert values(b.artifact) == list(range(7))
    if another:
        with a:
            a.finish(by="another")
    with b.mirror.alone(b.artifact, "geomim teacher", print) as lease:
        b.mirror.send(b.artifact, lease)
    assert (manifest_there(b.mirror.remote, STAGE, KEY) == b.artifact.finished()) is not another
    assert is_sent(b.artifact.path)
    assert b.artifact.is_intact()
    assert values(b.artifact) == list(range(7))


def test_a_dead_machines_part_is_taken_over_and_a_sleeper_damages_nothing(machine, monkeypatch):
    with machine(seconds=1.5) as a, machine(seconds=1.5) as b:
        part, lease = a.board.claim()
        lease = pickle.loads(pickle.dumps(lease))  # as its processes have it
        a.write(part, lease)
        a.leases._ended.set()  # it sleeps from now on
        a.leases._thread.join()
        written, began = [], time.monotonic()
        while len(written) < len(PARTS):
            written += b.work()
            b.see()
        assert written == [1, 2, 3, part]
        assert time.monotonic() - began > 1.5
        before = objects(b.mirror.remote)
        with pytest.raises(LeaseLost, match="another process has taken this work over"):
            lease.check()
        with pytest.raises(LeaseLost):
            a.board.keep(part)
        # At whatever instant it slept: a put that it had sent, before or after it looked what is there, does nothing.
        file, remote = f"{place_of(STAGE, KEY)}/{STORE}/box/c/{part}/0/0", a.mirror.remote
        assert remote.put_new(file, b"late") is None
        assert remote.put_over(file, b"late", '"what it saw"') is None
        monkeypatch.setattr(a.leases, "_check", lambda name: None)
        with pytest.raises(LeaseLost):
            a.leases.keep(str(part), a.store.store.files(part))
        assert objects(remote) == before
        a.board.give_back(part)
        a.leases._renew()  # awake: as another worker
        a.store.write(part, [box(7), box(8)])  # and what it was writing came to its place late, with other bits
        assert a.see() == PARTS
        assert values(a.artifact) == list(range(7))
        b.see()
        b.finish()
    assert values(b.artifact) == list(range(7))


def test_a_process_that_lives_is_waited_for(machine):
    with machine(seconds=2) as a, machine(seconds=2) as b:
        part, _ = a.board.claim()
        assert b.work() == [1, 2, 3]
        for _ in range(5):
            time.sleep(0.5)
            b.see()
            assert b.board.claim() is None
        assert "`geomim teacher` (process" in b.board.holder()
        a.board.give_back(part)
        b.see()
        assert b.work() == [part]


def test_what_was_written_and_not_sent_is_sent(machine):
    """It was killed in between, or an older run on this machine had begun."""
    a = machine()
    a.artifact.begin(RECIPE)
    store = BoxStore(a.artifact.path / STORE, TOKENS, 2)
    store.write(1, [box(2), box(3)])
    before = store.store.arrays["box"].file(1).stat().st_mtime_ns
    with a, machine() as b:
        assert a.board.left == PARTS
        assert a.work() == [0, 2, 3]
        assert b.see() == PARTS
        assert store.store.arrays["box"].file(1).stat().st_mtime_ns == before
        a.see()
        a.finish()
    assert values(a.artifact) == list(range(7))


def test_who_comes_back_goes_on_from_what_all_have_done(machine):
    with machine() as a, machine() as b:
        assert a.work(1) == [0]
        assert b.work() == [1, 2, 3]
        a.see()
    damaged = a.store.store.arrays["box"].file(0)  # by the disk, of what it had sent
    damaged.write_bytes(damaged.read_bytes()[:-9])
    a.store.store.parts.file(2).unlink()
    assert a.store.store.mend() == []
    with a:
        assert a.board.left == []
        assert a.work() == []
        assert values(a.artifact) == list(range(7))
        a.finish()


def test_begun_again_all_parts_are_made_again(machine):
    """By --force on one machine, while another one has done some."""
    with machine() as a, machine() as b:
        a.work(2)
        b.see()
        with b.mirror.alone(b.artifact, "geomim teacher --force", print):
            claimed = a.leases._parts.folder
            with pytest.raises(Changed):
                a.work()
            assert b.mirror.remote.get(f"{claimed}/2") is not None  # let go of
            b.mirror.forget(b.artifact, print)
        with pytest.raises(Changed):
            b.see()
    with b:
        assert b.board.left == PARTS
        with a:
            assert a.board.left == PARTS
        assert b.work() == PARTS


def test_who_has_it_alone_waits_for_parts(machine):
    with ExitStack() as stack, machine() as a:
        part, lease = a.board.claim()
        said = []
        stack.enter_context(a.mirror.alone(a.artifact, "geomim teacher --force", said.append))

        def forget(number):
            if number:
                a.mirror.forget(a.artifact, said.append)
            else:
                time.sleep(0.5)
                lease.check()
                a.write(part, lease)
                a.board.keep(part)

        at_once(forget, 2)
        assert said
        assert "waiting for `geomim teacher`" in said[0]
        assert a.mirror.remote.objects(parts_of(STAGE, KEY)) == {}


def test_sent_whole_by_another_meanwhile(machine, tmp_path):
    whole = Artifact(tmp_path / "root", STAGE, KEY)
    whole.begin(RECIPE)
    store = BoxStore(whole.path / STORE, TOKENS, 2)
    for part in PARTS:
        store.write(part, [box(sample) for sample in store.store.samples(part)])
    whole.finish(RECIPE, {}, 1.0, {})
    with machine() as a:
        a.work(1)
        push(whole.path, a.mirror.remote)
        with pytest.raises(Changed):
            a.work()
    with pytest.raises(Changed, match="has finished the artifact"), a:
        pass
    a.mirror.bring(a.artifact)
    assert values(a.artifact) == list(range(7))


def test_other_sizes_of_parts_are_one_sentence(machine):
    words = r"in parts of other sizes \(samples: boxes.zarr 2\) .* set the size there"
    with machine(), pytest.raises(UserError, match=words), machine(part_size=3):
        pass


def test_requests_are_few(machine, s3, monkeypatch):
    """Its shards; to take a part, to see that nobody has all alone and that it is still its own, to say what it is."""
    counted = Faults()
    with proxy(s3, counted) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", credentials(port)["AWS_ENDPOINT_URL"])
        with machine() as a:
            monkeypatch.setattr(remote_leases, "SECONDS_BETWEEN_LOOKS", 0.0)
            before = counted.requests
            assert a.work() == PARTS
            assert a.see() == PARTS
            assert counted.requests - before == len(PARTS) * (3 + 4) + 1


def test_through_faults(machine, s3, monkeypatch, tmp_path):
    """A third of all requests break, those that the store has carried out included."""
    faults = Faults(0.33, seed=3)
    with proxy(s3, faults) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", credentials(port)["AWS_ENDPOINT_URL"])
        machines = [machine() for _ in range(2)]
        written = [[], []]

        def work(number):
            with machines[number] as here:
                while here.board.left:
                    written[number] += here.work(1)
                    here.see()
                if not number:
                    here.finish()

        at_once(work, 2)
    assert sum(faults.seen.values()) >= 20
    assert set(written[0]) | set(written[1]) == set(PARTS)
    monkeypatch.setenv("AWS_ENDPOINT_URL", credentials(s3)["AWS_ENDPOINT_URL"])
    whole, _ = pull(Remote(machines[0].mirror.remote.url), STAGE, KEY, tmp_path / "whole")
    assert values(whole) == list(range(7))
    assert check(whole.path) == []
