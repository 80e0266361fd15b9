"""The parts of an artifact's stores that are left to write, shared out among processes, of several machines too."""

from collections.abc import Iterator, Sequence

from storage.damage import Damaged
from storage.leases import Lease, Leases
from storage.part_store import PartStore


class PartBoard:
    """What one process knows of the parts: a part is done when it is flagged in every store."""

    def __init__(self, stores: Sequence[PartStore], leases: Leases):
        """stores: of the same samples, in the same parts."""
        self._stores, self._leases = stores, leases
        self._left = {part for store in stores for part in store.parts.pending()}
        self.mended: list[Damaged] = []

    @property
    def left(self) -> list[int]:
        """Parts that were not done when this process last looked, its own included."""
        return sorted(self._left)

    def claim(self) -> tuple[int, Lease] | None:
        """A part to write, with the lease under which to do it; None where others work on all that are left."""
        left = self.left
        while (lease := self._leases.claim(map(str, left))) is not None:
            part = int(lease.name)
            if not self._is_done(part):
                return part, lease
            self._leases.release(lease.name)  # somebody finished it since this process last looked
            left.remove(part)
        return None

    def give_back(self, part: int) -> None:
        """Let go of a part that was claimed, be it done or not."""
        self._leases.release(str(part))

    def newly_done(self) -> Iterator[int]:
        """Parts that were left at the last look and are done now, whoever did them.

        One whose lease went from hand to hand may have been written by two: it is read and checked before it counts.
        """
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
        return all(store.parts.is_done(part) for store in self._stores)

    def _is_whole(self, part: int) -> bool:
        damages = [(store, store.damage(part)) for store in self._stores]
        for store, damage in damages:
            if damage is not None:
                store.parts.unmark(part)
                self.mended.append(damage)
        return not any(damage for _, damage in damages)
