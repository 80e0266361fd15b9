"""Cores by quotas in folders like the kernel's, and threads counted in the processes of the real pools."""

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from common.cores import COUNTS, WAITING, SharingContext, available_cores, environment_of_child
from core_jobs import threads_here
from training.ranks import run_ranks

ROOT = Path(__file__).parents[2]
ROOMS = ("flows", "tasks", "batches", "simulate", "evaluation", "training", "dataroot", "models", "storage", "common")
NO_QUOTA = "max 100000"
MINE = available_cores()


def cores(folder: Path, membership: str, **files: str) -> int:
    """Of a process whose groups are `membership`, in a tree with these files; __ stands for / and dot for a dot."""
    for name, text in files.items():
        path = folder / "cgroup" / name.replace("__", "/").replace("dot", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (folder / "self").write_text(membership)
    return available_cores(folder / "cgroup", folder / "self")


@pytest.fixture
def many_cores(monkeypatch):
    """More cores than any quota here, whatever the machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(192)))


@pytest.mark.usefixtures("many_cores")
class TestQuotas:
    def test_a_container_of_version_2(self, tmp_path):
        assert cores(tmp_path, "0::/\n", cpudotmax="400000 100000") == 4

    def test_a_path_that_leads_nowhere_inside_the_container(self, tmp_path):
        assert cores(tmp_path, "0::/kubepods/pod1/abc\n", cpudotmax="300000 100000") == 3

    def test_the_narrowest_of_nested_groups_counts(self, tmp_path):
        quotas = {"cpudotmax": NO_QUOTA, "job__cpudotmax": "200000 100000", "job__step__cpudotmax": "800000 100000"}
        assert cores(tmp_path, "0::/job/step\n", **quotas) == 2

    def test_no_quota(self, tmp_path):
        assert cores(tmp_path, "0::/job\n", job__cpudotmax=NO_QUOTA) == 192

    def test_a_share_of_a_core_and_more(self, tmp_path):
        assert cores(tmp_path, "0::/\n", cpudotmax="50000 100000") == 1
        assert cores(tmp_path, "0::/\n", cpudotmax="250000 100000") == 2

    def test_version_1(self, tmp_path):
        groups = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n"
        period = {"cpu__docker__abc__cpudotcfs_period_us": "50000"}
        assert cores(tmp_path, groups, cpu__docker__abc__cpudotcfs_quota_us="150000", **period) == 3
        assert cores(tmp_path, groups, cpu__docker__abc__cpudotcfs_quota_us="-1", **period) == 192

    def test_files_that_say_something_else(self, tmp_path):
        assert cores(tmp_path, "0::/\n", cpudotmax="what") == 192


def test_the_affinity_counts():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from common.cores import available_cores; print(available_cores())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_a_system_without_affinities_and_cgroups(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cores(tmp_path, tmp_path / "self") == os.cpu_count()


def test_a_child_gets_all_cores_unless_the_user_says_otherwise(monkeypatch):
    for name in COUNTS:
        monkeypatch.delenv(name, raising=False)
    assert {environment_of_child()[name] for name in COUNTS} == {str(MINE)}
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert environment_of_child()["OMP_NUM_THREADS"] == str(MINE)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert {environment_of_child()[name] for name in COUNTS} == {"3"}
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    assert environment_of_child()["OPENBLAS_NUM_THREADS"] == "2"
    assert environment_of_child()["PATH"] == os.environ["PATH"]


def test_a_childs_threads_do_not_spin_for_long_unless_the_user_says_so(monkeypatch):
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    assert {name: environment_of_child()[name] for name in WAITING} == WAITING
    for name, value in (("GOMP_SPINCOUNT", "infinite"), ("OMP_WAIT_POLICY", "ACTIVE")):
        with monkeypatch.context() as told:
            told.setenv(name, value)
            found = {other: environment_of_child().get(other) for other in WAITING}
            assert found == dict.fromkeys(WAITING) | {name: value}


@pytest.mark.timeout(120)
def test_a_process_of_a_pool_starts_its_own_threads_and_no_more(monkeypatch):
    """Whatever this process was told, and whenever the pool starts it."""
    for name in COUNTS:
        monkeypatch.setenv(name, "8")
    before, found = dict(os.environ), {}
    for threads in (1, 2):
        with ProcessPoolExecutor(2, SharingContext(threads)) as pool:
            found[threads] = [pool.submit(threads_here).result() for _ in range(2)]
        expected = dict.fromkeys((*COUNTS, "torch"), threads)
        assert [{k: v for k, v in f.items() if k != "all"} for f in found[threads]] == [expected] * 2
    assert found[1][0]["all"] < found[2][0]["all"]
    assert dict(os.environ) == before


@pytest.mark.timeout(120)
def test_ranks_share_the_threads_of_the_process_that_starts_them(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "8")
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = run_ranks(2, torch.device("cpu"), threads_here)
    finally:
        torch.set_num_threads(before)
    assert (found["torch"], found["OPENBLAS_NUM_THREADS"]) == (2, 2)


def test_nobody_else_counts_cores_or_starts_processes():
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    asked = ("cpu_count(", "sched_getaffinity(", "get_context(", 'OMP_NUM_THREADS":')
    found = [(path.name, word) for path in files for word in asked if word in path.read_text()]
    assert set(found) == {("cores.py", word) for word in asked if word != "get_context("}
