"""What holds for all tests of pretraining."""

import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine


@pytest.fixture(autouse=True)
def small_pictures(request, monkeypatch):
    """Every small training ends with a picture that costs most of its time; test_picture.py draws it in full."""
    if request.path.name != "test_picture.py":
        savefig = Figure.savefig
        monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: savefig(figure, file, dpi=20))
        monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)
