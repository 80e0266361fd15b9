"""Public config files: JSON, YAML, and Python that is read without being run."""

import json

import pytest
import yaml

from common.errors import UserError
from tasks.public_config import read_public_config


@pytest.fixture
def write(tmp_path):
    def written(text: str, name: str = "config.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return written


# In the way of BEVDet's and mmdetection3d's files.
PYTHON = '''
"""A docstring."""
_base_ = ['../_base_/datasets/nus-3d.py', '../_base_/default_runtime.py']
custom_imports = dict(imports=['projects.BEVFusion'], allow_failed_imports=False)
point_cloud_range = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
data_config = {'input_size': (256, 704), 'resize': (-0.06, 0.11), 'resize_test': -0.00}
width = 80
frames = (1, 1+1, 1)
head = dict(pc_range=point_cloud_range[:2], out=point_cloud_range[-1], size=data_config['input_size'])
model = dict(
    type='BEVDet4D',
    num_adj=len(range(*frames)),
    backbone=dict(in_channels=512 + 1024, norm_cfg=dict(type='BN'), half=width / 2, whole=width // 3),
    widths=[width * 2, width * 4, width * 8],
    bbox_head=dict(head, weight=0.25),
    listed=list((1, 2)) + [3],
    none=None)
data_root: str = 'data/nuscenes/'
train_pipeline = [dict(type='LoadPointsFromMultiSweeps', ann_file=data_root + 'infos.pkl')]
share = dict(classes=['car'])
data = dict(train=dict(dataset=dict(pipeline=train_pipeline)), val=dict())
for key in ['val']:
    data[key].update(share)
data['train']['dataset'].update(share)
import os
home = os.environ['HOME']
'''


def test_assignments_are_read_as_python_would(write):
    names: dict = {}
    exec(PYTHON, names)
    read = read_public_config(write(PYTHON))
    for name in ("model", "data_config", "train_pipeline", "head", "custom_imports", "point_cloud_range", "data"):
        assert read[name] == names[name]
    assert isinstance(read["data_config"]["input_size"], tuple)
    assert "home" not in read


def test_nothing_is_run(write, tmp_path):
    text = f"open({str(tmp_path / 'made')!r}, 'w').write('x')\nmodel = dict(a=1)\nb = open('/etc/passwd')\n"
    assert read_public_config(write(text)) == {"model": {"a": 1}}
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model = dict(a=f(3))", r"model cannot be told without running the file \(line 1: `f\(3\)`\); give the res"),
        ("import a\nmodel = dict(a=a.b)", r"line 2: `a\.b`"),
        ("x = [i for i in 'ab']\nmodel = dict(a=x)", r"line 2: x is line 1"),
        ("model = dict(a=x)", "x is not defined above"),
        ("model = dict(a=1)\nmodel['a'] = 2", "line 2 may change it"),
        ("model = dict(a=1)\nmodel.update(b=2)", "line 2 may change it"),
        ("x = dict(a=1)\nmodel = dict(y=[x])\nx.update(a=2)", r"model cannot .*\(line 3 may change it"),
        ("x = [1]\nmodel = dict(y=x)\nx += [2]", r"model cannot .*\(line 3 may change it"),
        ("if True:\n    model = dict(a=1)", "line 1 may change it"),
        ("v = dict(s=1)\nparts = [v]\nmodel = dict(v=v)\nfor p in parts:\n    p['s'] = 2", "line 4 may change it"),
        ("v = dict(s=1)\nmodel = dict(v=v)\nfor p in [v]: p['s'] = 2", "line 3 may change it"),
        ("parts = (dict(s=1),)\nmodel = dict(v=parts)\nparts[0]['s'] = 2", "line 3 may change it"),
        ("a = dict(s=[1])\nmodel = dict(a)\na['s'].append(2)", "line 3 may change it"),
        ("a = [dict(x=1)]\nb = list(a)\nmodel = dict(h=a)\nb[0]['x'] = 2", "line 4 may change it"),
        ("a = dict(s=1)\nx = dict(b=f(3), a=a)\nmodel = dict(a=a)\nx['a']['s'] = 2", "line 4 may change it"),
        ("a = dict(s=1)\nx = a.get('s')\nmodel = dict(a=a)", r"line 3: a is `a\.get\('s'\)` may change it"),
        ("model = dict(s=1)\nx = [model.update(s=2) for _ in (1,)]", r"`model\.update\(s=2\)` may change it"),
        ("model = dict(s=1)\nx = [unknown, f(model)]", r"`f\(model\)` may change it"),
        ("n = 1\nx = (n := 2) - f(0)\nmodel = dict(n=n)", r"n is `\(n := 2\)` may change it"),
        ("model = dict(s=1)\nglobals()['model'] = dict(s=2)", "line 2 may change it"),
        ("model = dict(s=1)\nfrom base import *", "line 2 may change it"),
        ("model = dict(s=1)\nfrom base import model", "line 2 may change it"),
        ("model = dict(s=1)\nfrom base import other as model", "line 2 may change it"),
        ("model = dict(s=1)\nwith read_base():\n    from .base import *", "line 2 may change it"),
        ("def range(n):\n    return [7]\nmodel = dict(n=len(range(3)))", r"line 3: `range\(3\)`"),
        ("def dict(**k):\n    return 7\nmodel = dict(n=1)", r"line 3: `dict\(n=1\)`"),
        ("from other import dict\nmodel = dict(n=1)", r"line 2: `dict\(n=1\)`"),
        ("model = dict(a=1)\nmodel.update(dict(b=model))", "line 2 may change it"),
        ("model = dict(a=1)\nfor x in [1]:\n    model.update(dict(b=x))\n    break", "line 2 may change it"),
        ("model = dict(**{'a': 1})", "line 1"),
        ("model = {**{}}", "line 1"),
        ("model = dict(a=[1][3])", "line 1: list index out of range"),
        ("model = dict(a=1 / 0)", "line 1: division by zero"),
        ("model = [0] * 10 ** 10", "line 1"),
        ("model = range(10 ** 3 * 10 ** 3)", "line 1"),
        ("model = range(1000000)", "a range of 1000000 numbers"),
        ("x = [0] + [0]\n" + "x = x + x\n" * 60 + "model = x", "is too much"),
        ("x = 9\n" + "x = x * x\n" * 60 + "model = x", "is too much"),
        ("model = '%99999999999d' % 1", "line 1"),
        ("_base_ = './other.py'\nmodel = dict(a=1)", r"inherits from \./other\.py, which may hold parts of the model"),
        ("_base_ = ['../_base_/models/a.py']\nmodel = dict(a=1)", "which may hold parts of the model"),
        ("_base_ = ['../_base_/datasets/../../models.py']\nmodel = dict(a=1)", "which may hold parts of the model"),
        ("_base_ = ['../_base_/models.py']\nmodel = dict(a=1)", "which may hold parts of the model"),
        ("_base_ = None\nmodel = dict(a=1)", "inherits from None, which may hold parts of the model"),
        ("_base_ = f()\nmodel = dict(a=1)", "_base_ cannot be told"),
        ("data_config = f()\nmodel = dict(a=1)", "data_config cannot be told"),
        ("model = (", "is no config in JSON, YAML or Python"),
        ("model = " + "[" * 5000 + "]" * 5000, "is no config in JSON, YAML or Python"),
    ],
)
def test_what_would_have_to_be_run_is_a_sentence(write, text, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        read_public_config(write(text))
    assert "\n" not in str(error.value)
    assert "config.py" in str(error.value)


def test_a_list_without_what_may_change_it(write):
    """Strings and numbers that are handed to a function, and sections that are copied, stay what they are."""
    text = "root = 'data/'\nclasses = ['car']\npath = os.path.join(root, 'a')\nshare = dict(c=classes)\n"
    text += "model: dict\nboth = dict(**share)\nname = f'{root}x'\nmodel = dict(c=classes, r=root)"
    assert read_public_config(write(text))["model"] == {"c": ["car"], "r": "data/"}


def test_tuples_of_a_dumped_config(write):
    text = "model:\n  size: !!python/tuple\n  - 256\n  - 704\n"  # as mmengine's Config.dump has it
    assert read_public_config(write(text, "config.yaml")) == {"model": {"size": (256, 704)}}


@pytest.mark.parametrize("name", ["config.json", "config.yaml", "config.yml"])
def test_resolved_configs(write, name):
    values = {"model": {"type": "BEVFusion", "widths": [8, 12]}, "lr": 0.1}
    text = json.dumps(values) if name.endswith("json") else yaml.safe_dump(values)
    assert read_public_config(write(text, name)) == values
    assert read_public_config(write("\ufeff" + text, name)) == values


@pytest.mark.parametrize(
    ("text", "name", "sentence"),
    [
        ("{", "a.json", "is no config"),
        ("[1, 2]", "a.json", "must hold sections such as `model:`, not a list"),
        ("a: [", "a.yaml", "is no config"),
        ("", "a.yaml", "not a NoneType"),
        ("[" * 20000, "a.json", "is no config"),
        ("[" * 5000 + "]" * 5000, "a.yaml", "is no config"),
        ("a: !!python/object/apply:os.system ['true']", "a.yaml", "is no config"),
    ],
)
def test_bad_files_are_a_sentence(write, text, name, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        read_public_config(write(text, name))
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.py: cannot be read \(No such file"):
        read_public_config(tmp_path / "none.py")
    (tmp_path / "latin.py").write_bytes(b"a = '\xff'")
    with pytest.raises(UserError, match="is no config"):
        read_public_config(tmp_path / "latin.py")
