"""The prefetcher with loads that say when they begin, and that wait to be let go."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from training import prefetch
from training.prefetch import Prefetcher, choose_loaders

ROOT = Path(__file__).parents[2]


def loaders_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


def wait_until(true, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 99), max_size=20), st.integers(1, 4), st.integers(1, 6))
def test_batches_come_in_the_order_of_the_steps(steps, workers, ahead):
    def load(step):
        time.sleep(0.001 * (step % 3))  # so that a later one is done before an earlier one
        return -step

    with Prefetcher(load, steps, workers, ahead) as batches:
        assert list(batches) == [-step for step in steps]
    assert loaders_alive() == []


def test_so_many_are_made_ahead_and_no_more():
    begun, may_go = [], threading.Event()

    def load(step):
        begun.append(step)
        may_go.wait(10)
        return step

    with Prefetcher(load, range(100), workers=2, ahead=4) as batches:
        wait_until(lambda: begun == [0, 1] or begun == [1, 0])  # one for each worker
        may_go.set()
        wait_until(lambda: len(begun) == 4)
        time.sleep(0.05)
        assert sorted(begun) == [0, 1, 2, 3]
        for step in range(5):
            assert next(batches) == step
            wait_until(lambda: len(begun) == 5 + step)  # noqa: B023 (called at once)
        time.sleep(0.05)
        assert sorted(begun) == [*range(9)]


def test_an_error_comes_where_its_batch_would_have_come():
    def load(step):
        if step == 2:
            raise UserError("samples/2.jpg: does not decode; fetch the file again")
        return step

    with Prefetcher(load, range(9), workers=3, ahead=4) as batches:
        assert [next(batches), next(batches)] == [0, 1]
        with pytest.raises(UserError, match=r"^samples/2.jpg: does not decode; fetch the file again$"):
            next(batches)
    assert loaders_alive() == []


def test_a_consumer_that_stops_leaves_nothing_behind():
    begun = []

    def consume():
        with Prefetcher(begun.append, range(1000), 3, 5) as batches:
            next(batches)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert loaders_alive() == []
    assert len(begun) <= 6


def test_a_killed_process_takes_its_loaders_along():
    """Also where a load never ends: a signal ends the process and all its threads."""
    code = (
        "import threading; from training.prefetch import Prefetcher\n"
        "with Prefetcher(lambda step: threading.Event().wait() if step else 0, range(9), 2, 3) as batches:\n"
        "    print(next(batches), flush=True); next(batches)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "0\n"
        child.terminate()
        assert child.wait(10) != 0
    finally:
        child.kill()
        child.wait()


def test_loaders_compute_on_one_core_and_leave_the_rest_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with Prefetcher(lambda step: torch.get_num_threads(), range(8), 2, 4) as batches:
            assert torch.get_num_threads() == 3
            assert set(batches) == {1}
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert [torch.get_num_threads(), *elsewhere] == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_sensible_numbers_of_loaders(monkeypatch):
    monkeypatch.setattr(prefetch, "available_cores", lambda: 16)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [choose_loaders(0, cpu), choose_loaders(3, cpu), choose_loaders(3, cuda, 8)] == [1, 3, 3]
    assert [choose_loaders(0, cuda, ranks) for ranks in (1, 2, 4, 8, 32)] == [8, 7, 3, 1, 1]
