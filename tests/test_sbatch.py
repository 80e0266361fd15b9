"""The batch script: which command it gives to Slurm, told by stand-ins for Slurm's own commands."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from driver import wait_for

SCRIPT = Path(__file__).parents[1] / "deploy" / "pretrain.sbatch"
STAND_INS = {
    "scontrol": 'case $1 in show) echo node1; echo node2;; *) echo "$@" > requeued;; esac',
    "srun": 'shift; exec "$@"',
    "torchrun": 'printf "%s\\n" "$@" > being_given; mv being_given given; sleep $SECONDS_IT_TAKES; exit 3',
}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8"}


@pytest.fixture
def started(tmp_path):
    def start(seconds):
        for name, script in STAND_INS.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
            (tmp_path / name).chmod(0o755)
        path = f"{tmp_path}:{Path(shutil.which('bash')).parent}:/usr/bin:/bin"
        env = SLURM | {"PATH": path, "SECONDS_IT_TAKES": str(seconds)}
        return subprocess.Popen(["bash", str(SCRIPT)], cwd=tmp_path, env=env)

    return start


def test_what_torchrun_is_given(started, tmp_path):
    assert started(0).wait(60) == 3
    given = get_args_parser().parse_args((tmp_path / "given").read_text().splitlines())
    assert (given.nnodes, given.nproc_per_node, given.rdzv_endpoint, given.rdzv_id) == ("2", "8", "node1:29500", "7")
    assert given.no_python
    assert [given.training_script, *given.training_script_args[:2]] == ["geomim", "pretrain", "--config"]


def test_a_job_that_is_out_of_time_is_queued_again(started, tmp_path):
    job = started(20)
    wait_for((tmp_path / "given").exists)
    job.send_signal(signal.SIGUSR1)
    job.wait(10)
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
