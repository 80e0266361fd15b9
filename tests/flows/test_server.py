"""Where a run's own Prefect server keeps its things."""

from pathlib import Path

import pytest

from flows.server import exclusive_home, plain


def test_runs_at_the_same_time_have_homes_of_their_own(tmp_path):
    home = tmp_path / ".prefect"
    with exclusive_home(home) as first, exclusive_home(home) as second, exclusive_home(home) as third:
        assert [first.name, second.name, third.name] == [".prefect", ".prefect-2", ".prefect-3"]
        assert all(folder.is_dir() for folder in (first, second, third))
    with exclusive_home(home) as again:
        assert again == first


@pytest.mark.parametrize("name", ["100%", "{x}$HOME", "a?b", "c#d"])
def test_a_name_of_which_others_make_something_is_not_used(name):
    home = plain(Path("/data") / name / ".prefect")
    assert name not in str(home)
    assert home == plain(Path("/data") / name / ".prefect") != plain(Path("/data/else") / name / ".prefect")


def test_a_plain_name_is_kept():
    home = Path("/data/my runs/über-1.2_b/.prefect")
    assert plain(home) == home
