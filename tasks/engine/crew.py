"""A stage's parts, written by all processes that there are: a machine's own, and whoever else runs the stage."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeVar

from common.progress import say
from storage.leases import FINISH, LeaseLost, PartLease, PartLeases
from storage.part_board import PartBoard
from storage.waiting import Waiting

Result = TypeVar("Result")

SECONDS_BETWEEN_LOOKS = 0.5


def write_shared(
    board: PartBoard,
    stage: str,
    begin: Callable[[int, PartLease], Future[Result]],
    most: int,
    end: Callable[[int, PartLease, Result], None] = lambda part, lease, result: None,
) -> Iterator[tuple[int, Result | None]]:
    """Write what is left of a board until all is done; (part, its result, or None where another process wrote it).

    begin: starts to work on a part; `most` are under way at a time. end: what this process itself then does with the
    result. Either may raise LeaseLost (`Lease.check`): the part is somebody else's then.
    """
    flying: dict[Future[Result], tuple[int, PartLease]] = {}
    results: dict[int, Result] = {}
    waiting = _waiting(stage)
    try:
        while board.left:
            while len(flying) < most and (claimed := board.claim()) is not None:
                flying[begin(*claimed)] = claimed
            if flying:
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    part, lease = flying.pop(future)
                    try:
                        end(part, lease, result := future.result())
                        board.keep(part)
                        results[part] = result
                    except LeaseLost as lost:
                        say(f"{stage}: {lost}")
                        board.give_back(part)
            elif board.left:
                waiting.a_while(board.holder)
            for part in board.newly_done():
                yield part, results.pop(part, None)
            while board.mended:
                damage = board.mended.pop()
                say(f"{stage}: {damage.path}: {damage.what}; its part is made again")
    finally:
        for future in flying:
            future.cancel()


def take_or_leave(leases: PartLeases, stage: str, done: Callable[[], bool]) -> bool:
    """Wait until this process has FINISH, then True; or until `done()`, since another one has had it, then False."""
    waiting = _waiting(stage)
    while leases.claim([FINISH]) is None:
        if done():
            return False
        waiting.a_while(lambda: leases.holder(FINISH))
    return not done()


def _waiting(stage: str) -> Waiting:
    return Waiting(lambda line: say(f"{stage}: {line}"), SECONDS_BETWEEN_LOOKS, after=2 * SECONDS_BETWEEN_LOOKS)


def done_here(work: Callable[..., Result], *args: object) -> Future[Result]:
    """What `begin` of `write_shared` returns where this process does the work itself."""
    future: Future[Result] = Future()
    try:
        future.set_result(work(*args))
    except LeaseLost as lost:
        future.set_exception(lost)
    return future
