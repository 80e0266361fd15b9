"""`geomim ingest --deep` through the command line's entry: on a fresh dataroot and on one whose index is cached."""

import pytest

from flows import cli
from simulate.config import SimulateConfig
from simulate.write import simulate


@pytest.fixture
def geomim(tmp_path, monkeypatch, capsys):
    simulate(SimulateConfig(keyframes=2, image_scale=0.1, lidar_rate=2, workers=1), tmp_path / "data", ("scene-0061",))

    def run(*words):
        command = ["geomim", "ingest", "--root", str(tmp_path / "root"), "--dataroot", str(tmp_path / "data"), *words]
        monkeypatch.setattr("sys.argv", command)
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, capsys.readouterr().err

    return run


def test_a_damaged_image_is_found_although_the_index_is_cached_and_can_be_left_out(geomim, tmp_path):
    assert geomim("--deep")[0] == 0
    path = min((tmp_path / "data" / "samples" / "CAM_BACK").iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    path.write_bytes(data)
    assert geomim()[0] == 0
    code, told = geomim("--deep")
    assert code == 1
    name = str(path.relative_to(tmp_path / "data"))
    assert f"{name}  sample_data.filename  is a damaged JPEG" in told
    assert "ingest.leave_out" in told
    assert geomim("--deep", "--set", f"ingest.leave_out=[{name}]")[0] == 0
