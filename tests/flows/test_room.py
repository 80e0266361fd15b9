"""Cores are handed out to whoever fits, in the order of asking, and no more of them than there are."""

import threading
import time

from flows.room import Room, cores_of
from storage.artifact import Artifact
from tasks.engine.config import load_config
from tasks.engine.dag import build_dag
from tasks.engine.stage import Step


def run(room: Room, wanted: list[int]) -> tuple[int, list[int]]:
    """Most cores held at once, and the order in which the takers began."""
    held, most, began, lock = 0, 0, [], threading.Lock()

    def take(number: int, cores: int) -> None:
        nonlocal held, most
        with room.taken(cores):
            with lock:
                held, most = held + min(cores, room.cores), max(most, held + min(cores, room.cores))
                began.append(number)
            time.sleep(0.05)
            with lock:
                held -= min(cores, room.cores)

    threads = [threading.Thread(target=take, args=pair) for pair in enumerate(wanted)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return most, began


def test_as_many_at_once_as_there_are_cores():
    assert run(Room(2), [1, 1, 1, 1])[0] == 2
    assert run(Room(4), [2, 1, 1, 4, 0])[0] == 4


def test_one_that_wants_all_is_not_overtaken():
    most, began = run(Room(2), [1, 2, 1, 1])
    assert most == 2
    assert began == [0, 1, 2, 3]


def test_who_wants_none_does_not_wait():
    """Not behind one that waits either: `depth` runs beside the teacher, whatever wants the cores next."""
    assert run(Room(2), [2, 2, 0])[1] == [0, 2, 1]


def test_more_than_there_are_means_all():
    assert run(Room(2), [64, 1, 64]) == (2, [0, 1, 2])


def test_an_error_gives_them_back():
    room = Room(1)
    for _ in range(3):
        try:
            with room.taken(1):
                raise ValueError
        except ValueError:
            pass


def test_what_a_stage_takes(tmp_path):
    config = load_config(None, ["preset=demo", "finetune.threads=1", "pretrain={threads: 2, ranks: 2, batch_size: 2}"])
    steps = {
        node.name: Step(node.stage, node.config, None, Artifact(tmp_path, node.stage.name, "0"), None, "")
        for node in build_dag(config)
    }
    taken = {name: cores_of(step) for name, step in steps.items()}
    assert taken["ingest"] == taken["depth"] == 0
    assert taken["pretrain"] == 4
    assert taken["finetune"] == taken["evaluate"] == taken["finetune-baseline"] == 1
    alone = load_config(None, ["preset=demo", "finetune.threads=0"])
    assert all(cores_of(steps[n.name]) for n in build_dag(alone) if n.stage.on_device)
