"""What the tests of pools run in processes of their own: a module, so that those processes can import it."""

import os

import numpy as np
import torch

from common.cores import COUNTS


def threads_here() -> dict[str, int]:
    """What libraries are told, torch's number of threads, and how many this process has after products of both."""
    a = np.ones((512, 512))
    b = torch.ones(512, 512)
    _ = a @ a, b @ b
    told = {name: int(os.environ[name]) for name in COUNTS}
    return told | {"torch": torch.get_num_threads(), "all": len(os.listdir("/proc/self/task"))}
