import pytest

from flows import cli


@pytest.fixture
def geomim(monkeypatch, capsys):
    """The command line's entry: words -> (exit code, output, errors)."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["geomim", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    return run
