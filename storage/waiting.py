"""Waiting for another process's work, of which a line tells when that begins to take long, and now and then."""

import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 60.0


class Waiting:
    def __init__(self, tell: Callable[[str], None], every: float, after: float = 0.0):
        """tell: gets the lines. every: seconds between looks. after: that many seconds before the first line."""
        self._tell, self._every, self._began = tell, every, time.monotonic()
        self._next_line = self._began + after

    def a_while(self, holder: Callable[[], str | None]) -> None:
        """Until the next look. holder: for whom, in words; "" or None where there is nothing to tell."""
        now = time.monotonic()
        if now >= self._next_line and (whom := holder()):
            waited = f" ({now - self._began:.0f} s so far)" if now - self._began >= SECONDS_BETWEEN_LINES else ""
            self._tell(f"waiting for {whom}{waited}")
            self._next_line = now + SECONDS_BETWEEN_LINES
        time.sleep(self._every)
