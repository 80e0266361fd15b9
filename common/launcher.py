"""Whether torchrun, or what sets the same variables, started this process as one of several, and as which of them."""

import os
from dataclasses import dataclass

from common.errors import UserError

NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


@dataclass(frozen=True)
class Launched:
    """A process's place among those that a launcher started on all machines."""

    rank: int  # among all
    count: int  # of all
    local_rank: int  # among those of this machine
    local_count: int  # of those of this machine
    restarted: bool  # whether a launcher has started them before


def launched() -> Launched | None:
    """This process's place; None where nobody launched it. Raises UserError where the variables make no sense."""
    if not _is_launched():
        return None
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        raise UserError(
            f"RANK and WORLD_SIZE are set, as torchrun sets them, but {missing[0]} is not: "
            f"set all of {', '.join(NEEDED)}, or none"
        )
    rank, count, local_rank = map(_number, NEEDED[:3])
    if not (local_rank <= rank < count):
        raise UserError(f"RANK is {rank}, LOCAL_RANK {local_rank} and WORLD_SIZE {count}: ranks count from 0")
    local_count = _number("LOCAL_WORLD_SIZE") if os.environ.get("LOCAL_WORLD_SIZE") else count
    return Launched(rank, count, local_rank, local_count, any(os.environ.get(name, "0") != "0" for name in RESTARTS))


def is_follower() -> bool:
    """Whether another of the launched processes tells the user what there is to tell."""
    return _is_launched() and os.environ["RANK"] != "0"


def _is_launched() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise UserError(f"{name} is {text!r}: launchers set it to a number")
    return int(text)
