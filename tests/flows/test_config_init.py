"""`geomim config init`: a file that loads and can be planned, with what fits the data."""

import json

import jsonschema
import pytest
import yaml

from dataroot.names import TABLES
from flows.config_schema import config_schema
from tasks.engine.config import load_config

SCENES, SAMPLES = 4, 200  # samples a scene


@pytest.fixture
def dataroot(tmp_path):
    """Tables of one's own: three scenes of train, one of val, 640x360 images, two cameras and two categories that
    nuScenes lacks."""
    names = [f"drive {i}" for i in range(SCENES)]
    tables = {name: [] for name in TABLES} | {
        "scene": [{"token": f"s{i}", "name": name} for i, name in enumerate(names)],
        "sample": [{"token": f"{i}", "scene_token": f"s{i % SCENES}"} for i in range(SCENES * SAMPLES)],
        "sample_data": [{"width": 0, "height": 0}, *[{"width": 640, "height": 360}] * 6],
        "sensor": [
            {"channel": name, "modality": kind}
            for name, kind in (("right", "camera"), ("LIDAR_TOP", "lidar"), ("left", "camera"))
        ],
        "category": [{"name": name} for name in ("vehicle.car", "Truck", "blimp: grey")],
    }
    folder = tmp_path / "data" / "v1.0-mine"
    folder.mkdir(parents=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    (folder / "splits.json").write_text(json.dumps({"train": names[:3], "val": names[3:]}))
    return folder.parent


def test_it_fits_the_data(geomim, dataroot, tmp_path):
    file = tmp_path / "my.yaml"
    code, told, _ = geomim("config", "init", file, "--dataroot", dataroot)
    assert code == 0
    assert "(v1.0-mine): 4 scenes, 800 samples, 600 of them train; images 640x360" in told
    assert "categories that nuScenes does not have: Truck, blimp: grey" in told
    assert "2 cameras: left, right; see ingest.cameras" in told
    config = load_config(file)
    assert (config.dataroot, config.version) == (dataroot, "v1.0-mine")
    assert config.ingest.cameras == ("left", "right")
    assert config.ingest.classes == {"Truck": "truck", "blimp: grey": "ignore"}
    assert config.pretrain.image.size == config.finetune.image.size == (128, 352)  # 704 px would be made up
    assert config.pretrain.steps == 50 * 600 // config.pretrain.batch_size
    assert config.finetune.steps == 20 * 600 // config.finetune.batch_size
    assert config.fit.warmup == 300  # a tenth of its steps


def test_every_value_has_one_line_that_says_what_it_is(geomim, dataroot, tmp_path):
    file = tmp_path / "my.yaml"
    geomim("config", "init", file, "--dataroot", dataroot)
    lines = file.read_text().splitlines()
    values = [i for i, line in enumerate(lines) if not line.strip().startswith("#") and ": " in line]
    guessed = [line for line in lines if line.startswith("    ") and ("Truck" in line or "blimp" in line)]
    assert len(values) > 20
    for i in values:
        assert lines[i] in guessed or lines[i - 1].strip().startswith("# "), lines[i]
        assert lines[i] in guessed or i < 5 or not lines[i - 2].strip().startswith("#"), lines[i]
    assert max(map(len, lines)) <= 120
    assert jsonschema.Draft202012Validator(config_schema()).is_valid(yaml.safe_load("\n".join(lines)))


def test_it_can_be_planned(geomim, dataroot, tmp_path):
    file, root = tmp_path / "my.yaml", tmp_path / "root"
    geomim("config", "init", file, "--dataroot", dataroot, "--version", "v1.0-mine")
    code, told, _ = geomim("run", "--config", file, "--root", root, "--dry-run")
    assert code == 0
    assert [line.split()[:2] for line in told.splitlines()[1:5]] == [
        [stage, "run"] for stage in ("ingest", "fit", "teacher", "depth")
    ]


def test_without_a_lidar_finetuning_is_what_is_left(geomim, dataroot, tmp_path):
    table = dataroot / "v1.0-mine" / "sensor.json"
    table.write_text(json.dumps([row for row in json.loads(table.read_text()) if row["modality"] == "camera"]))
    file, root = tmp_path / "my.yaml", tmp_path / "root"
    _, told, _ = geomim("config", "init", file, "--dataroot", dataroot)
    assert "no LiDAR: for finetuning and evaluation alone, see ingest.lidar" in told
    config = load_config(file)
    assert not config.ingest.lidar
    assert (config.finetune.init, config.finetune.depth_weight) == ("random", 0)
    code, told, _ = geomim("run", "--config", file, "--root", root, "--dry-run")
    assert code == 0
    assert [line.split()[0] for line in told.splitlines()[1:4]] == ["ingest", "finetune", "evaluate"]


def test_a_file_that_is_there_stays(geomim, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("mine")
    assert geomim("config", "init", file) == (
        2,
        "",
        f"geomim: {file}: is there already, and stays as it is; name another file\n",
    )
    assert file.read_text() == "mine"


def test_without_data_the_values_are_the_published(geomim, tmp_path):
    away = tmp_path / "away"
    code, told, _ = geomim("config", "init", tmp_path / "my.yaml", "--dataroot", away, "--version", "v1.0-trainval")
    assert (code, told.splitlines()[0]) == (0, f"{away} is not there yet: nothing was looked at")
    config = load_config(tmp_path / "my.yaml")
    assert (config.dataroot, config.version, config.pretrain.steps) == (away, "v1.0-trainval", 88_000)
    assert geomim("config", "init", tmp_path / "bare.yaml")[0] == 0
    assert load_config(tmp_path / "bare.yaml").dataroot is None


def test_tables_that_are_not_there(geomim, dataroot, tmp_path):
    code, _, told = geomim("config", "init", tmp_path / "my.yaml", "--dataroot", dataroot, "--version", "v1.0-test")
    assert (code, told) == (2, f"geomim: {dataroot} has no tables v1.0-test: add --version v1.0-mine\n")
    assert not (tmp_path / "my.yaml").exists()


@pytest.mark.parametrize("content", ["", "{}", "[1", '[1, {"width": "wide"}]', '[{"name": 3}, {}]'])
def test_tables_that_do_not_read_are_left_to_ingest(geomim, dataroot, tmp_path, content):
    for table in ("scene", "sample", "sample_data", "category"):
        (dataroot / "v1.0-mine" / f"{table}.json").write_text(content)
    (dataroot / "v1.0-mine" / "map.json").unlink()
    code, told, _ = geomim("config", "init", tmp_path / "my.yaml", "--dataroot", dataroot)
    assert code == 0
    assert "0 of them train; images of unknown size" in told
    assert "tables that are missing: map" in told
    assert load_config(tmp_path / "my.yaml").pretrain.steps == 88_000
