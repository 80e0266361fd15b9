"""Training on several processes, the ranks: one a GPU, started, failing and ending together.

`run_ranks` starts them, on this machine; or a launcher has, on any number of machines (rendezvous.py). Everything else
here is called by the ranks themselves, and does the obvious where there is only one: a process that nobody started as a
rank.
"""

import multiprocessing
import multiprocessing.connection
import os
import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from common.cores import SharingContext
from common.errors import FileSystemError, StageFailed, UserError
from common.launcher import Launched
from common.processes import die_with, how_it_ended
from common.progress import say
from models.sync_norm import synchronise_norms
from training.rendezvous import Rendezvous, joined

Result = TypeVar("Result")

HOST = "127.0.0.1"
# The others wait while rank 0 evaluates. Nobody waits in vain: a rank that ends takes the others with it.
LONGEST_WAIT = timedelta(hours=12)
SECONDS_FOR_THE_CAUSE = (
    2.0  # a rank that ends makes the others fail in its wake; the first to report may be one of them
)
GOES_ON = "the same command goes on from there"


def choose_ranks(asked: int, device: torch.device, batch_size: int) -> int:
    """How many ranks share micro-batches of `batch_size` samples: as asked; for 0 as many GPUs as share it equally.

    Those of a launcher are all that it started. Raises UserError where there are not as many GPUs, or where shares
    would differ.
    """
    if others := joined():
        return _choose_launched(asked, device, batch_size, others.place.count)
    many = device.type == "cuda" and device.index is None
    most = torch.cuda.device_count() if many else 1
    if asked == 0:
        count = max(n for n in range(1, most + 1) if batch_size % n == 0)
        if count < most:
            say(f"{count} of {most} GPUs compute: more do not share a (micro-)batch of {batch_size} samples equally")
        return count
    if device.type == "cuda" and asked > most:
        raise UserError(f"ranks is {asked}, but device {str(device)!r} has {most} GPU: set ranks to {most} or fewer")
    if batch_size % asked:
        raise UserError(f"ranks is {asked}, which does not divide a (micro-)batch of {batch_size} samples")
    return asked


def _choose_launched(asked: int, device: torch.device, batch_size: int, count: int) -> int:
    if device.index is not None:
        raise UserError(f"device is {str(device)!r}, but launched ranks take a machine's GPUs in order: set it to cuda")
    if asked not in (0, count):
        raise UserError(f"ranks is {asked}, but {count} were launched: set ranks to 0 or {count}")
    if batch_size % count:
        raise UserError(f"{count} ranks were launched, which do not divide a (micro-)batch of {batch_size} samples")
    return count


def run_ranks(count: int, device: torch.device, run: Callable[..., Result], *args: Any) -> Result:
    """`run(*args)` in `count` processes at once, as one group of torch.distributed; what rank 0 returned.

    run: a module's function. It and its arguments are pickled, so that every rank has its own.

    NCCL on CUDA, where rank r has GPU r, else gloo. The ranks share this process's number of CPU threads. If one of
    them fails, all end, and its exception is raised here: UserError, FileSystemError and OSError as they are,
    StageFailed where the rank was killed, RuntimeError with its traceback for anything else. They die with this
    process, however it ends. With one rank `run` is called right here.

    Launched ranks are there already: rank 0 calls this, and the others, who `follow`, do their part.
    """
    if others := joined():
        others.give((run, args, device.type, torch.get_num_threads()))
        return _part(others, device.type, run, args)
    if count == 1:
        return run(*args)
    store = distributed.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # on a free port
    context = SharingContext(max(1, torch.get_num_threads() // count))
    work = pickle.dumps((run, args))  # plainly: torch's way would give all ranks the same tensors
    processes, outcomes = [], {}
    try:
        for number in range(count):
            receive, send = context.Pipe(duplex=False)
            group = (number, count, store.port, device.type)
            process = context.Process(target=_rank, args=(os.getpid(), group, send, work))
            process.start()
            send.close()  # so that the rank's end closes the pipe
            processes.append(process)
            outcomes[receive] = number
        return _result(outcomes, processes)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _result(outcomes: dict[multiprocessing.connection.Connection, int], processes: list) -> Any:
    """What rank 0 returned, once all have returned; raises as soon as it is clear which rank failed, and why."""
    result = failure = deadline = None
    while outcomes:
        ready = multiprocessing.connection.wait(outcomes, deadline and deadline - time.monotonic())
        if not ready:
            break
        for receive in [connection for connection in outcomes if connection in ready]:
            number = outcomes.pop(receive)
            name = f"rank {number} of {len(processes)}"
            try:
                value, error = pickle.loads(receive.recv_bytes())
            except EOFError:
                processes[number].join()
                died = how_it_ended(processes[number].exitcode)
                raise StageFailed(f"{name} {died}; {GOES_ON}") from None
            if isinstance(error, UserError | FileSystemError):
                raise error
            if error and not failure:
                failure = error if isinstance(error, OSError) else RuntimeError(f"{name} failed:\n{error}")
                deadline = time.monotonic() + SECONDS_FOR_THE_CAUSE
            result = value if number == 0 else result
    if failure:
        raise failure
    return result


def follow(others: Rendezvous, here: Callable[[Any], Any]) -> None:
    """What launched ranks do, but for rank 0: their part of whatever that hands to `run_ranks`, until it has no more.

    here: what an argument of rank 0's is on this machine.
    """
    while (work := others.take()) is not None:
        run, args, device, threads = work
        torch.set_num_threads(threads)
        _part(others, device, run, [here(arg) for arg in args])


def _part(others: Rendezvous, device: str, run: Callable[..., Result], args: Sequence[Any]) -> Result:
    """A launched rank's part of `run(*args)`. Raises StageFailed where another rank has gone."""
    place = others.place
    if place.count == 1:
        return run(*args)
    store = distributed.PrefixStore(f"group {others.given}", others.store.clone())
    try:
        return _in_group(store, place.rank, place.count, _gpu(place) if device == "cuda" else None, run, args)
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        time.sleep(SECONDS_FOR_THE_CAUSE)  # if that rank said why, this one ends here
        what = str(error).strip().splitlines()[0]
        raise StageFailed(f"rank {place.rank} of {place.count} lost another ({what}); {GOES_ON}") from None


def _gpu(place: Launched) -> torch.device:
    """This rank's: the machine's of that number, or the one that its launcher lets it see."""
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen != 1 and place.local_rank >= seen:
        raise UserError(f"LOCAL_RANK is {place.local_rank}, but torch finds {seen} GPUs here: launch a rank a GPU")
    return torch.device("cuda", 0 if seen == 1 else place.local_rank)


def _in_group(
    store: distributed.Store,
    number: int,
    count: int,
    gpu: torch.device | None,
    run: Callable[..., Result],
    args: Sequence[Any],
) -> Result:
    """`run(*args)` as one rank of a group, which is no more afterwards."""
    if gpu:
        torch.cuda.set_device(gpu)
    distributed.init_process_group(
        "nccl" if gpu else "gloo", store=store, rank=number, world_size=count, timeout=LONGEST_WAIT, device_id=gpu
    )
    result = run(*args)
    wait_for_ranks()  # whoever leaves closes its connections
    distributed.destroy_process_group()
    return result


def _rank(parent: int, group: tuple[int, int, int, str], outcome: Any, work: bytes) -> None:
    die_with([parent])
    number, count, port, device = group
    report: tuple[Any, Exception | str | None]
    try:
        store = distributed.TCPStore(HOST, port, is_master=False)
        gpu = torch.device("cuda", number) if device == "cuda" else None
        run, args = pickle.loads(work)
        report = _in_group(store, number, count, gpu, run, args), None
    except (UserError, FileSystemError) as error:
        report = None, error
    except OSError as error:  # such as a full disk, of which those who run stages tell
        error.add_note(traceback.format_exc())
        report = None, error
    except Exception:
        report = None, traceback.format_exc()
    outcome.send_bytes(pickle.dumps(report))  # (torch's way of sending a tensor needs the sender to live on)


def rank() -> int:
    """This process's number among the ranks: 0 writes files and logs."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def rank_count() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def ranks_here() -> int:
    """How many of them share this machine's cores."""
    others = joined()
    return others.place.local_count if others else rank_count()


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of all ranks' `values`, of one shape and on the training device."""
    if rank_count() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


def shares(counts_of: Callable[[Any], dict[str, Tensor]], batches: Sequence[Any]) -> list[dict[str, Tensor]]:
    """How much each term's mean in each of this rank's micro-batches counts, by name.

    So that the mean over all ranks' micro-batches is the mean over all that they hold together. counts_of: a batch's
    numbers, see `Task.counts`. Called on all ranks; nothing is counted where there is one micro-batch in all.
    """
    if rank_count() == len(batches) == 1:
        return [{}]
    counts = [counts_of(batch) for batch in batches]
    if not counts[0]:
        return counts
    weights = weights_of_parts(torch.stack([torch.stack(list(c.values())) for c in counts]).float())
    return [dict(zip(c, row)) for c, row in zip(counts, weights)]


def weights_of_parts(counts: Tensor) -> Tensor:
    """How much each micro-batch's losses count, so that their mean over all ranks' micro-batches is the loss of all.

    counts (n, ...): by how many (or by 1, where there are none) the sum of a micro-batch's losses was divided.
    """
    parts = rank_count() * len(counts)
    return counts.clamp(min=1) / (sum_over_ranks(counts.sum(0)) / parts).clamp(min=1 / parts)


def gathered(value: Any) -> list[Any]:
    """All ranks' values, in their order; anything that pickles."""
    values = [value] * rank_count()
    if rank_count() > 1:
        distributed.all_gather_object(values, value)
    return values


def wait_for_ranks() -> None:
    """Return when every rank is here."""
    if rank_count() > 1:
        distributed.barrier()


def distribute(model: nn.Module, within: Callable[[nn.Module], nn.Module] = lambda model: model) -> nn.Module:
    """What to call instead of `model` so that a backward pass averages the gradients over the ranks.

    Its batch norms become those of all ranks, in place. All that requires a gradient must get one in every step.
    within: makes of the model what one rank calls.
    """
    if rank_count() == 1:
        return within(model)
    return DistributedDataParallel(
        within(synchronise_norms(model)),
        forward_sync_buffers=False,  # they are statistics, which are the same on all ranks, or constants
        gradient_as_bucket_view=True,
    )


def without_averaging(network: nn.Module | None) -> AbstractContextManager:
    """Inside, backward passes through `network` only add to this rank's own gradients."""
    return getattr(network, "no_sync", nullcontext)()
