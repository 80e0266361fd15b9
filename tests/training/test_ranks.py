import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from children import children_with
from common.errors import UserError
from driver import wait_for
from models.sync_norm import SyncNorm, synchronise_norms
from rank_jobs import fail_at_rank_1, gradients
from training.ranks import choose_ranks, gathered, rank, rank_count, run_ranks, sum_over_ranks

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def some_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 5, 3, padding=1, bias=False),
        nn.BatchNorm2d(5, momentum=0.3),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(180, 4, bias=False),
        nn.BatchNorm1d(4),
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("compiled", [False, True], ids=["as it is", "as one graph"])
def test_two_ranks_compute_as_one_does(compiled):
    """Outputs, gradients of inputs and weights, and running statistics, channels far from 0 included."""
    torch.manual_seed(1)
    scale, mean = torch.tensor([[1, 2, 0.1], [500, 0, -5]]).view(2, 3, 1, 1)
    x = torch.randn(2, 6, 3, 6, 6) * scale + mean
    one = gradients(some_network(), x)
    two = run_ranks(2, CPU, gradients, some_network(), x, compiled)
    assert one.pop("sum") == 1
    assert two.pop("sum") == 3
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=1e-4, atol=2e-4 * float(expected.abs().max()), msg=name)


def test_a_shared_norm_of_one_process_is_torchs_own():
    net, shared = some_network(), synchronise_norms(some_network())
    assert [type(m) for m in shared if "Norm" in type(m).__name__] == [SyncNorm] * 3
    assert net.state_dict().keys() == shared.state_dict().keys()
    assert [id(p) for p in shared.parameters()] == [id(p) for p in synchronise_norms(shared).parameters()]
    x = torch.randn(6, 3, 6, 6)
    for mode in (True, False):
        assert torch.equal(net.train(mode)(x), shared.train(mode)(x))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), shared.buffers()))
    with pytest.raises(ValueError, match="only a batch norm with momentum"):
        synchronise_norms(nn.Sequential(nn.BatchNorm1d(2, affine=False)))


@pytest.mark.timeout(300)
def test_a_rank_that_fails_ends_all_with_its_sentence():
    with pytest.raises(UserError, match=r"^samples/1.jpg: cannot be read$"):
        run_ranks(2, CPU, fail_at_rank_1)
    assert children_with("spawn_main") == []


@pytest.mark.timeout(300)
def test_ranks_die_with_the_process_that_started_them(tmp_path):
    script = textwrap.dedent(f"""
        import sys
        sys.path.append({str(ROOT / "tests/support")!r})
        from pathlib import Path
        import torch
        from rank_jobs import sleep
        from training.ranks import run_ranks
        run_ranks(2, torch.device("cpu"), sleep, Path({str(tmp_path)!r}))
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, start_new_session=True
    )
    try:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        ranks = children_with("spawn_main", psutil.Process(parent.pid))
        assert len(ranks) == 2
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert psutil.wait_procs(ranks, timeout=10)[1] == []


def test_one_process_is_rank_0_of_one():
    assert (rank(), rank_count(), gathered("a")) == (0, 1, ["a"])
    assert torch.equal(sum_over_ranks(torch.arange(3)), torch.arange(3))
    assert run_ranks(1, CPU, max, 3, 5) == 5


def test_the_number_of_ranks_follows_the_devices_and_the_batch():
    assert choose_ranks(0, CPU, 16) == choose_ranks(0, torch.device("cuda:0"), 16) == 1
    assert choose_ranks(4, CPU, 16) == 4
    with pytest.raises(UserError, match=r"ranks is 3, which does not divide a \(micro-\)batch of 16 samples"):
        choose_ranks(3, CPU, 16)
    with pytest.raises(UserError, match=r"ranks is 2, but device 'cuda:0' has 1 GPU"):
        choose_ranks(2, torch.device("cuda:0"), 16)


def test_gpus_that_stand_idle_are_told(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 6)
    cuda = torch.device("cuda")
    assert choose_ranks(0, cuda, 12) == 6
    assert capsys.readouterr().err == ""
    assert choose_ranks(0, cuda, 16) == 4
    told = "4 of 6 GPUs compute: more do not share a (micro-)batch of 16 samples equally\n"
    assert capsys.readouterr().err == told
