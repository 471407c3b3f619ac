"""The layout of DESIGN.md: four roots, one namespace, and the traps that a folder named `platform` sets."""

import ast
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = ("streaming", "feature_store", "pipelines", "platform")
MODULES = sorted(file for root in ROOTS for file in (ROOT / root / "tidemill").rglob("*.py"))
STAGES = sorted(file.parent for root in ROOTS for file in (ROOT / root / "tidemill").glob("*/__init__.py"))
LONGEST = 600

names = pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(ROOT).as_posix())


def defined(tree: ast.Module) -> set[str]:
    """Every name that the module has once it is imported."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                found |= {alias.asname or alias.name.split(".")[0] for alias in aliases}
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
    return found


def exported(tree: ast.Module) -> list[str] | None:
    """The module's `__all__`; None if it has none."""
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__" and isinstance(node, ast.Assign | ast.AnnAssign):
            assert node.value is not None
            return list(ast.literal_eval(node.value))
    return None


def test_platform_is_the_standard_one() -> None:
    module = sys.modules.get("platform") or __import__("platform")
    assert Path(module.__file__ or "").parent == Path(sysconfig.get_path("stdlib"))


@pytest.mark.parametrize("root", ROOTS)
def test_no_file_hides_the_other_roots_or_the_standard_library(root: str) -> None:
    assert not (ROOT / root / "__init__.py").exists()
    assert not (ROOT / root / "tidemill" / "__init__.py").exists()
    assert root != "platform" or not list((ROOT / root).glob("*.py"))


def test_each_stage_is_in_exactly_one_root() -> None:
    assert [name for name, count in Counter(stage.name for stage in STAGES).items() if count > 1] == []
    folders = [path for root in ROOTS for path in (ROOT / root / "tidemill").iterdir() if path.is_dir()]
    bare = [path for path in folders if path not in STAGES and any(path.glob("*.py"))]
    assert bare == [], "a stage needs an __init__.py that says what it is"


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_each_stage_says_what_it_is(stage: Path) -> None:
    assert ast.get_docstring(ast.parse((stage / "__init__.py").read_text()))


@names
def test_each_module_says_what_it_is_and_what_it_offers(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree)
    offered = exported(tree)
    if offered is None:
        assert file.name == "__init__.py", "a module names what it offers in __all__"
        offered = []
    assert set(offered) <= defined(tree)
    assert len(offered) == len(set(offered))


@names
def test_no_module_is_so_long_that_it_does_several_things(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= LONGEST


@names
def test_no_module_is_named_for_nothing(file: Path) -> None:
    assert not {"utils", "helpers", "manager", "common"} & {*file.relative_to(ROOT).parts, file.stem}


def test_an_installed_wheel_has_the_compiled_pipeline(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path / "installed")
    program = "from tidemill.control.runs import COMPILED; print(COMPILED); print(COMPILED.read_text(), end='')"
    env = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    where, _, content_of = run.stdout.partition("\n")
    assert Path(where).is_relative_to(tmp_path / "installed" / "tidemill")
    assert content_of == (ROOT / "pipelines" / "retrain.yaml").read_text()
