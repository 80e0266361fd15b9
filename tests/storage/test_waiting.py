"""When those who wait are told for whom."""

from storage import waiting
from storage.waiting import Waiting


def test_a_line_at_first_and_now_and_then(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(waiting.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    lines = []
    wait = Waiting(lambda line: lines.append((now[0] - 100, line)), every=10, after=15)
    for holder in ["a"] * 3 + [None, ""] + ["b"] * 9:
        wait.a_while(lambda: holder)  # noqa: B023 (asked at once)
    assert lines == [
        (20, "waiting for a"),
        (80, "waiting for b (80 s so far)"),
    ]
    assert now[0] == 240
