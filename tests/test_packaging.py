"""What is installed is what is imported: the lock is installed with --no-deps, so nobody else checks it."""

import ast
import importlib
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
ROOMS = PYPROJECT["tool"]["importlinter"]["root_packages"]
LOCK = dict(line.split("==") for line in (REPOSITORY / "requirements.lock").read_text().split())

EXTRAS = {  # imported where an extra is installed -> what provides it
    "rerun": "rerun-sdk",
    "prefect_dask": "prefect-dask",
    "prefect_ray": "prefect-ray",
    "py123d": "py123d",
    "cv2": "opencv-python-headless",
}

# Asked for by the metadata of a locked package, used by nothing that we use of it; together over a gigabyte.
UNUSED = {
    "open3d",  # mmdet3d: drawing in windows
    "opencv-python",  # mmcv-lite, mmengine: a second OpenCV, which needs libGL; the headless one serves
    "lyft-dataset-sdk",  # mmdet3d: another dataset
    "plyfile",  # mmdet3d: other datasets' point clouds
    "trimesh",  # mmdet3d: writing meshes
    "scikit-image",  # mmdet3d: another dataset's images
    "parameterized",  # nuscenes-devkit: its own tests
    "fire",  # nuscenes-devkit: the panoptic command line
    "descartes",  # nuscenes-devkit: drawing vector maps
}


def modules():
    for room in ROOMS:
        for file in sorted((REPOSITORY / room).rglob("*.py")):
            yield ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("module", list(modules()))
def test_every_module_imports(module):
    importlib.import_module(module)


def test_the_lock_holds_names_and_versions_only():
    for line in (REPOSITORY / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line


def test_the_lock_is_what_is_installed():
    for name, version in LOCK.items():
        assert importlib.metadata.version(name).split("+")[0] == version


def test_the_lock_satisfies_the_declared_ranges():
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        assert LOCK[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_what_locked_packages_ask_for_is_locked_or_named_as_unused():
    missing = set()
    for name in LOCK:
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                missing.add(canonicalize_name(requirement.name))
    torchs = {n for n in missing if n.startswith(("nvidia-", "cuda-"))} | {"triton"}  # come with torch
    assert missing - LOCK.keys() - torchs == UNUSED


def test_what_we_import_is_declared():
    distributions = importlib.metadata.packages_distributions()
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    optional = [text for extra, texts in PROJECT["optional-dependencies"].items() if extra != "dev" for text in texts]
    extras = {canonicalize_name(Requirement(text).name) for text in optional}
    for room in ROOMS:
        for file in (REPOSITORY / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                for name in {n.split(".")[0] for n in names} - {*ROOMS, *sys.stdlib_module_names}:
                    if EXTRAS.get(name) in extras:
                        continue
                    found = {canonicalize_name(d) for d in distributions.get(name, [])}
                    assert found & declared, f"{file}: imports {name}, which pyproject.toml does not declare"
