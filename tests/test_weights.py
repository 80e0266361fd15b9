"""The weights that the project ships are those of their card, and the demo can begin with them."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

from tasks.checkpoints import read_tensors
from tasks.engine.config import load_config
from tasks.finetune.network import build_detector, load_backbone
from tasks.teacher.network import build_teacher

REPOSITORY = Path(__file__).resolve().parents[1]
CARD = (REPOSITORY / "weights" / "README.md").read_text()
FILES = sorted((REPOSITORY / "weights").glob("*.safetensors"))


def test_the_card_has_every_file_and_no_other():
    told = re.findall(r"\| `(\w+\.safetensors)` \| (\d+) \| ([0-9a-f]{64}) \|", CARD)
    found = [(file.name, str(file.stat().st_size), hashlib.sha256(file.read_bytes()).hexdigest()) for file in FILES]
    assert sorted(told) == sorted(found)
    assert sum(file.stat().st_size for file in FILES) < 10e6


@pytest.mark.parametrize("name", re.findall(r"--config (configs/[\w-]+\.yaml)", CARD))
def test_the_configs_on_the_card_make_what_the_demo_takes(name):
    made, demo = load_config(REPOSITORY / name), load_config(REPOSITORY / "configs/demo.yaml")
    assert made.lidar == demo.lidar
    assert made.backbone == demo.backbone
    assert made.simulate.seed != demo.simulate.seed


def test_the_demo_names_them(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    demo = load_config(REPOSITORY / "configs/demo.yaml")
    assert sorted(map(Path, (demo.teacher.weights, demo.pretrain.init))) == [
        file.relative_to(REPOSITORY) for file in FILES
    ]
    detector = build_detector(demo.finetune)
    before = {name: value.clone() for name, value in detector.backbone.state_dict().items()}
    load_backbone(detector, Path(demo.pretrain.init))
    after = detector.backbone.state_dict()
    whole = read_tensors(Path(demo.pretrain.init))
    assert all(torch.equal(after[name], whole[name]) for name in whole)
    assert before.keys() == whole.keys()
    build_teacher(demo.teacher, None, REPOSITORY, None)


def test_they_are_found_from_every_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    demo = load_config(None, ["preset=demo"])
    assert Path(demo.teacher.weights) == REPOSITORY / "weights/teacher.safetensors"
    assert demo.teacher.key_fields()["weights"] == "file"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/teacher.safetensors").write_bytes(b"the user's own")
    assert load_config(None, ["preset=demo"]).teacher.weights == "weights/teacher.safetensors"
    assert load_config(None, ["pretrain.init=none.pth"]).pretrain.init == "none.pth"
