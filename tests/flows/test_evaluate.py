"""`geomim evaluate` through the command line's entry, with its exit codes."""

import json
import shutil

import numpy as np
import pytest

from evaluation.ground_truth import ground_truth, ground_truth_attributes
from evaluation.submission import write_submission
from flows import cli
from simulate.config import SimulateConfig
from simulate.write import simulate
from storage.index import Index, write_index
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A dataroot of two val scenes, and the ground truth as a results file."""
    folder = tmp_path_factory.mktemp("world")
    settings = SimulateConfig(keyframes=2, image_scale=0.08, lidar_rate=2, workers=1)
    simulate(settings, folder / "data", ("scene-0103", "scene-0916"))
    arrays, attributes, _ = ingest(folder / "data", "v1.0-mini", IngestConfig())
    write_index(folder / "index.zarr", arrays, attributes)
    index = Index.open(folder / "index.zarr")
    truth = {s: ground_truth(index, s) for s in range(len(index))}
    names = {s: ground_truth_attributes(index, s) for s in truth}
    write_submission(folder / "results.json", index, truth, names, use_camera=True)
    return folder


@pytest.fixture
def geomim(world, monkeypatch, capsys):
    def run(*words, version="v1.0-mini", dataroot=world / "data"):
        command = ["geomim", "evaluate", *map(str, words), "--dataroot", str(dataroot), "--version", version]
        monkeypatch.setattr("sys.argv", command)
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_both_ways_print_the_same_tables(world, geomim):
    code, official, _ = geomim(world / "results.json")
    assert code == 0
    assert "mAP 1.0000, NDS 1.0000 on mini_val (4 samples)" in official
    assert "20-35 m" in official
    assert geomim(world / "results.json", "--quick") == (0, official, "")


@pytest.mark.parametrize("how", [[], ["--quick"]])
def test_categories_of_the_datasets_own_are_said(world, geomim, tmp_path, how):
    """`geomim evaluate` knows nuScenes' names alone: it must not score what is left as if it were all."""
    shutil.copytree(world / "data" / "v1.0-mini", tmp_path / "v1.0-mini")
    for name in ("samples", "sweeps", "maps"):
        (tmp_path / name).symlink_to(world / "data" / name)
    table = tmp_path / "v1.0-mini" / "category.json"
    rows = json.loads(table.read_text())
    table.write_text(json.dumps([r | {"name": r["name"].replace("vehicle.car", "Car")} for r in rows]))
    code, _, told = geomim(world / "results.json", *how, dataroot=tmp_path)
    assert code == 0
    assert "Car (" in told
    assert "which `geomim evaluate` does not read" in told
    table.write_text(json.dumps([r | {"name": r["name"].upper()} for r in rows]))
    code, shown, told = geomim(world / "results.json", *how, dataroot=tmp_path)
    assert (code, shown) == (1, "")
    assert "boxes is of a nuScenes category of the detection classes (" in told
    assert "a results file cannot be scored on it" in told


def test_json_has_the_same_numbers_in_both(world, geomim):
    official, quick = (json.loads(geomim(world / "results.json", "--json", *how)[1]) for how in ([], ["--quick"]))
    assert official.keys() == quick.keys()
    assert (official["split"], official["samples"]) == ("mini_val", 4)
    np.testing.assert_allclose([official["mAP"], official["NDS"]], [quick["mAP"], quick["NDS"]], atol=1e-6)


def test_a_bad_file_or_dataset_is_a_users_mistake(world, geomim, tmp_path):
    content = json.loads((world / "results.json").read_text())
    content["results"].popitem()
    (tmp_path / "short.json").write_text(json.dumps(content))
    code, _, said = geomim(tmp_path / "short.json")
    assert code == 2
    assert "lacks 1 of the 4 samples of mini_val" in said
    code, _, said = geomim(world / "results.json", version="v1.0-trainval")
    assert code == 2
    assert "holds no folder of tables v1.0-trainval" in said


@pytest.mark.parametrize("how", [[], ["--quick"]])
def test_a_broken_table_is_named_and_no_traceback(world, geomim, tmp_path, how):
    shutil.copytree(world / "data", tmp_path / "data")
    file = tmp_path / "data" / "v1.0-mini" / "sample_annotation.json"
    rows = json.loads(file.read_text())
    rows[3]["instance_token"] = "nobody"
    file.write_text(json.dumps(rows))
    code, _, said = geomim(world / "results.json", *how, dataroot=tmp_path / "data")
    assert code == 1
    assert "1 row naming nothing in instance.json (row 3: nobody)" in said


def test_a_missing_map_mask_is_named(world, geomim, tmp_path):
    shutil.copytree(world / "data", tmp_path / "data")
    victim = next((tmp_path / "data" / "maps").glob("*.png"))
    victim.unlink()
    code, _, said = geomim(world / "results.json", dataroot=tmp_path / "data")
    assert code == 1
    assert f"maps/{victim.name}" in said
    assert "missing" in said
    assert geomim(world / "results.json", "--quick", dataroot=tmp_path / "data")[0] == 0  # which needs no map


def test_without_annotations_the_file_is_checked_for_upload(world, geomim, tmp_path):
    tables = tmp_path / "v1.0-test"
    tables.mkdir()
    for file in (world / "data" / "v1.0-mini").iterdir():
        (tables / file.name).write_text("[]" if file.name == "sample_annotation.json" else file.read_text())
    (tables / "splits.json").write_text(json.dumps({"test": ["scene-0103", "scene-0916"]}))
    code, said, _ = geomim(world / "results.json", version="v1.0-test", dataroot=tmp_path)
    assert code == 0
    assert said.startswith("v1.0-test has no annotations of test, so nothing is scored: ")
    assert "holds all 4 of its samples" in said
    assert "can be uploaded as it is" in said
    code, said, _ = geomim(world / "results.json", "--json", version="v1.0-test", dataroot=tmp_path)
    assert (code, json.loads(said)["samples"]) == (0, 4)
    content = json.loads((world / "results.json").read_text())
    (tmp_path / "no-flags.json").write_text(json.dumps(content | {"meta": {"use_camera": True}}))
    code, _, said = geomim(tmp_path / "no-flags.json", version="v1.0-test", dataroot=tmp_path)
    assert code == 2
    assert "neither true nor false for use_lidar" in said
    (tables / "sample_annotation.json").unlink()
    code, _, said = geomim(world / "results.json", version="v1.0-test", dataroot=tmp_path)
    assert code == 1
    assert "the table is missing" in said
