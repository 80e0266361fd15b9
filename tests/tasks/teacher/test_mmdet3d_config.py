"""What an mmdet3d config inherits from, told without running it."""

import pytest

from common.errors import UserError
from tasks.teacher.mmdet3d_config import config_files


def written(folder, **texts):
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "config.py"


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ("model = dict()\n", []),
        ("_base_ = '../other/base.py'\n", ["other/base.py"]),
        ("_base_ = ['first.py', './second.py']\n", ["first.py", "second.py"]),
        ("_base_ = ('first.py',)\n", ["first.py"]),
        ("with read_base():\n    from .first import *\n    from ..other.base import model\n", ["first.py", "base.py"]),
        (
            "with read_base():\n    from .first import *\nwith read_base():\n    from .second import *\n",
            ["first.py", "second.py"],
        ),
        ("_base_ = 'first.py'\ndel _base_.custom_hooks\n", ["first.py"]),
    ],
)
def test_its_bases(tmp_path, config, names):
    path = written(tmp_path / "configs", config=config, first="a = 1", second="b = 2")
    written(tmp_path, other__base="c = 3")
    found = config_files(path)
    assert found[0] == path
    assert [file.name for file in found[1:]] == [name.rpartition("/")[2] for name in names]
    assert all(file.is_file() for file in found)


def test_bases_of_bases_each_once(tmp_path):
    path = written(tmp_path, config="_base_ = ['a.py', 'b.py']", a="_base_ = 'c.py'", b="_base_ = 'c.py'", c="x = 1")
    assert [file.stem for file in config_files(path)] == ["config", "a", "b", "c"]


def test_a_circle_ends(tmp_path):
    path = written(tmp_path, config="_base_ = 'a.py'", a="_base_ = 'config.py'")
    assert [file.stem for file in config_files(path)] == ["config", "a"]


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ("_base_ = [folder + '/base.py']\n", "its _base_ is no plain list of files"),
        ("_base_ = 'mmdet3d::centerpoint/config.py'\n", "inherits from another package"),
        ("_base_ = None\n", "its _base_ is no plain list of files"),
        ("_base_ = [3]\n", "its _base_ is no plain list of files"),
        ("if True:\n    _base_ = './base.py'\n", "inherits in line 2"),
        ("if True:\n    with read_base():\n        from .base import *\n", "inherits in line 2"),
        ("_base_: list = ['base.py']\n", "inherits in line 1"),
        ("with read_base():\n    from mmdet3d.configs import base\n", "inherits by `from mmdet3d.configs import base`"),
    ],
)
def test_what_only_running_it_would_tell(tmp_path, config, what):
    with pytest.raises(UserError, match=f"{what}.*write the whole config into one file"):
        config_files(written(tmp_path, config=config))


@pytest.mark.parametrize(("name", "text"), [("c.yaml", "_base_: ./base.py\n"), ("c.json", '{"_base_": "./base.py"}')])
def test_bases_of_another_format_are_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name}: inherits by _base_, .*write the whole config into one file"):
        config_files(tmp_path / name)
    (tmp_path / name).write_text("{}")
    assert config_files(tmp_path / name) == [tmp_path / name]
