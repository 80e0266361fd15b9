"""The geometry that reaches the kernels, whatever code made it: recorded below autograd and autocast."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models.bevdet import cost_volume
from models.mim4d import warp

aten = torch.ops.aten
# In inference mode operators come whole, else as what they are made of.
BAGS = (aten._embedding_bag, aten._embedding_bag_forward_only, aten.embedding_bag)
# Ours, which torch takes for kernels: what they call is looked at.
OWN = {
    torch.ops.geomim.cost_volume: cost_volume._cost_volume.__wrapped__,
    torch.ops.geomim.sampling_places: warp.sampling_places.__wrapped__,
}
SAMPLING = (aten.grid_sampler_2d, aten.grid_sampler)


class Geometry(TorchDispatchMode):
    """While the context lasts: `points`, what each cell of a splat adds up; `places`, where maps are sampled; and
    `numbers`, what batch norms of rows (M, C) take (rows describe cameras; images and maps have more dimensions)."""

    def __init__(self):
        super().__init__()
        self.points: list[Tensor] = []
        self.places: list[Tensor] = []
        self.numbers: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if own := OWN.get(func.overloadpacket):
            with self:
                return own(*args)
        if func.overloadpacket in BAGS:
            self.points += [args[1].clone(), args[2].clone()]
        elif func.overloadpacket in SAMPLING:
            self.places.append(args[1].clone())
        elif "batch_norm" in str(func) and "backward" not in str(func) and args[0].ndim == 2:
            self.numbers.append(args[0].clone())
        return func(*args, **(kwargs or {}))

    def same_as(self, other: "Geometry") -> bool:
        """Whether all of it is the same to the bit."""
        mine, theirs = (g.points + g.places + g.numbers for g in (self, other))
        counts = [[len(g.points), len(g.places), len(g.numbers)] for g in (self, other)]
        return counts[0] == counts[1] and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(mine, theirs))
