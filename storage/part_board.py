"""The parts of an artifact's stores that are left to write, shared out among processes, of several machines too."""

from collections.abc import Iterator, Sequence

from storage.damage import Damaged
from storage.leases import LeaseLost, PartLease, PartLeases
from storage.part_store import PartStore


class PartBoard:
    """What one process knows of the parts: a part is done when it is flagged in every store, where all find it."""

    def __init__(self, stores: Sequence[PartStore], leases: PartLeases):
        """stores: of the same samples, in the same parts. Raises UserError where others work on other parts."""
        self._stores, self._leases = stores, leases
        leases.agree({store.path.name: store.part_size for store in stores})
        leases.look()
        self._left = {part for part in range(stores[0].parts.count) if not self._is_done(part)}
        self.mended: list[Damaged] = []

    @property
    def left(self) -> list[int]:
        """Parts that were not done when this process last looked, its own included."""
        return sorted(self._left)

    def claim(self) -> tuple[int, PartLease] | None:
        """A part to write, with the lease under which to do it; None where others work on all that are left."""
        left = self.left
        while (lease := self._leases.claim(map(str, left))) is not None:
            part = int(lease.name)
            if not self._is_written(part):
                return part, lease
            try:
                self.keep(part)  # it was finished since this process last looked, or before a kill
            except LeaseLost:
                self.give_back(part)
            left.remove(part)
        return None

    def keep(self, part: int) -> None:
        """Let go of a part that was claimed and is written. Raises LeaseLost where it is another's by now."""
        if str(part) in self._leases.taken_over() and not self._is_whole(part):
            self.give_back(part)
        else:
            self._leases.keep(str(part), [file for store in self._stores for file in store.files(part)])

    def give_back(self, part: int) -> None:
        """Let go of a part that was claimed, and is not done."""
        self._leases.release(str(part))

    def newly_done(self) -> Iterator[int]:
        """Parts that were left at the last look and are done now, whoever did them.

        One whose lease went from hand to hand may have been written by two: it is read and checked before it counts.
        """
        self._leases.look()
        flagged = set.intersection(*(store.parts.flagged() for store in self._stores))
        for part in sorted(self._left & flagged):
            if self._is_done(part):
                if str(part) in self._leases.taken_over() and not self._is_whole(part):
                    continue
                self._left.discard(part)
                yield part

    def holder(self) -> str:
        """Who has the first part that is left, in words."""
        return self._leases.holder(str(min(self._left)))

    def _is_done(self, part: int) -> bool:
        return self._leases.has(str(part)) and self._is_written(part)

    def _is_written(self, part: int) -> bool:
        return all(store.parts.is_done(part) for store in self._stores)

    def _is_whole(self, part: int) -> bool:
        damages = [(store, store.damage(part)) for store in self._stores]
        for store, damage in damages:
            if damage is not None:
                store.parts.unmark(part)
                self.mended.append(damage)
        return not any(damage for _, damage in damages)
