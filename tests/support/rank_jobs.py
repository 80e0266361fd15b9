"""What the tests of ranks run in processes of their own: a module, so that those processes can import it."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

import launching
from common.errors import StageFailed, UserError
from common.launcher import launched
from damages import damage
from evaluation.occupancy import OccupancyScore
from small_tasks import Part, Rates, SmallTask
from storage.artifact import Artifact
from tasks.finetune.goals.goal import SampleResult
from tasks.finetune.goals.tally import tallied
from training import rendezvous
from training.checkpoint import Checkpoint
from training.loop import TrainSpec, train
from training.ranks import (
    choose_ranks,
    distribute,
    follow,
    gathered,
    rank,
    rank_count,
    run_ranks,
    sum_over_ranks,
    wait_for_ranks,
    without_averaging,
)
from training.rendezvous import Rendezvous


class KilledAt3(Artifact):
    """An artifact whose third step of training is the last of rank 0."""

    def write_progress(self, done: int, total: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def gradients(net: nn.Module, x: Tensor, compiled: bool = False) -> dict[str, Tensor]:
    """Outputs, gradients and buffers of a network with batch norms over (2, B, C, H, W): two micro-batches of a step.

    Each rank takes its share of both; the loss is the mean of the squared outputs' fourth power.
    """
    network = distribute(net.train(), one_graph if compiled else lambda net: net)
    halves = [half.chunk(rank_count())[rank()].clone().requires_grad_() for half in x]
    with without_averaging(network):
        first = network(halves[0])
        (first.square().square().mean() / 2).backward()
    second = network(halves[1])
    (second.square().square().mean() / 2).backward()
    made = {"first": first, "second": second}
    made |= {f"input {i}": half.grad / rank_count() for i, half in enumerate(halves)}
    made = {name: torch.cat(gathered(value.detach())) for name, value in made.items()}
    made |= {name: p.grad for name, p in net.named_parameters()} | dict(net.named_buffers())
    return made | {"sum": sum_over_ranks(x.new_tensor(rank() + 1.0))}


def one_graph(net: nn.Module) -> nn.Module:
    """Whole, or an error: of the network's own operators, since nothing is asked of what a compiler makes of them."""
    return torch.compile(net, fullgraph=True, backend="eager", dynamic=False)


def tally(found: list[SampleResult], most: int) -> tuple[dict, list[int]]:
    """The score of all samples and the worst of them, each rank having looked at its share."""
    made = tallied(iter(found[rank() :: rank_count()]), OccupancyScore, most)
    return made.score.result(), [looked.sample for looked in made.worst]


def fail_at_rank_1() -> None:
    """Rank 0 waits for a sum that rank 1 will never add to."""
    if rank() == 1:
        raise UserError("samples/1.jpg: cannot be read")
    distributed.all_reduce(torch.ones(1))


def sleep(folder: Path) -> None:
    """Every rank says in `folder` that it runs, and goes on doing so."""
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def spoilt_training(folder: Path, spoilt: str) -> tuple[list[dict[str, Tensor]], list[dict]]:
    """All ranks' weights after six steps of two micro-batches, and the log.

    spoilt: "loss": rank 1's second micro-batch of step 3 holds NaN; "always": that of every step; "gradient": the root
    of 0 in step 3, whose loss is finite.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    network = distribute(model)

    def load(step: int) -> list[Part]:
        x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(10 * step + rank()))
        if rank() == 1 and spoilt != "gradient" and (step == 3 or spoilt == "always"):
            x[1] = float("nan")
        return [Part((step, part, x[part]), [f"rank{rank()}-{part}"]) for part in range(2)]

    def losses(batch: tuple[int, int, Tensor]) -> dict[str, Tensor]:
        step, part, x = batch
        made = network(x)
        root = (made * float((step, part, rank(), spoilt) != (3, 1, 1, "gradient"))).abs().sqrt()
        return {"error": (root - 1).square().mean()}

    task = SmallTask(load, losses, network=network)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, fused=True)
    train(TrainSpec("fit", Rates(6), 1.0), task, model, optimizer, Checkpoint(folder / "checkpoint.pt"), folder)
    weights = gathered({name: value.detach() for name, value in model.state_dict().items()})
    return weights, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def loaded_step(folder: Path, size: int) -> list[int]:
    """The step that each rank goes on from; then two more are saved, of a model with `size` weights."""
    model = nn.Linear(size, 1)
    optimizer, checkpoint = torch.optim.SGD(model.parameters(), 0.1), Checkpoint(folder / ".checkpoint.pt")
    done, _ = checkpoint.load(model, optimizer)
    for step in (1, 2):
        checkpoint.save(step, model, optimizer)
    return gathered(done)


def loaded_steps(folder: Path, how: Callable[[bytes], bytes]) -> list[list[int]]:
    """`loaded_step` at first, then again, then where the last checkpoint is damaged."""
    first, again = (loaded_step(folder, 10) for _ in range(2))
    if rank() == 0:
        damage(folder / ".checkpoint.pt", how)
    wait_for_ranks()
    return [first, again, loaded_step(folder, 10)]


def as_rank(job: Callable[[Rendezvous], None]) -> None:
    """A job of a launched rank, as a command does it."""
    others = Rendezvous(launched())
    try:
        job(others)
    except (UserError, StageFailed) as error:
        others.fail(str(error), 2 if isinstance(error, UserError) else 1)
    others.leave()


def launched_ranks(others: Rendezvous) -> None:
    """Rank 0 has all ranks do two things, one after the other, and says what came of them."""
    if others.place.rank:
        follow(others, lambda argument: 10 * argument)
        return
    for argument in (1, 2):
        print(run_ranks(2, torch.device("cpu"), gathered, argument), rank_count())
    for asked, device, batch in ((0, "cpu", 4), (2, "cuda", 4), (3, "cpu", 6), (0, "cuda:1", 4), (0, "cpu", 5)):
        try:
            print(choose_ranks(asked, torch.device(device), batch))
        except UserError as error:
            print(error)
    others.give(None)


def rank_1_fails(others: Rendezvous) -> None:
    _all_of(others, fail_at_rank_1)


def rank_1_is_killed(others: Rendezvous) -> None:
    _all_of(others, killed, 1)


def rank_0_is_killed(others: Rendezvous) -> None:
    _all_of(others, killed, 0)


def _all_of(others: Rendezvous, job: Callable[..., None], *args: Any) -> None:
    if others.place.rank:
        follow(others, lambda argument: argument)
    else:
        run_ranks(2, torch.device("cpu"), job, *args)


def killed(victim: int) -> None:
    """A rank goes without a word, and the other waits for a sum that it will never add to."""
    if rank() == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.all_reduce(torch.ones(1))


def comes_late() -> None:
    """Rank 1 has nothing more to do, and comes to its end when rank 0 has long come to it."""
    rendezvous.SECONDS_TO_LEAVE = 0.1
    others = Rendezvous(launched())
    if others.place.rank:
        time.sleep(2)
    others.leave()


def a_word(word: str) -> None:
    """Rank 0 says it to rank 1, in the store that torchrun keeps from start to start."""
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"

    def job(others: Rendezvous) -> None:
        if others.place.rank:
            print(others.hear("word"))
        else:
            time.sleep(0.5)  # whoever takes an old word for it has read that
            others.tell("word", word)

    as_rank(job)


def rank_1_is_suspended(others: Rendezvous) -> None:
    """For good, as far as rank 0 can tell."""
    rendezvous.LOOKS_AT_SILENCE = 2
    if others.place.rank:
        time.sleep(2 * rendezvous.SECONDS_BETWEEN_LOOKS)  # it was there
        os.kill(os.getpid(), signal.SIGSTOP)
    others.hear("nothing")


def launcher(port: int, told: Path) -> None:
    """Starts a rank, which says its process's number, and waits."""
    if os.fork() == 0:
        launching.launched((0, 1, port), told, as_rank, waiting)
    time.sleep(600)


def waiting(others: Rendezvous) -> None:
    print(os.getpid(), flush=True)
    time.sleep(600)
