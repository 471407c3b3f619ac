"""What code made a version: the SHA-256 of the user's files, the commit they are of, and Tidemill's own version.

Of a class in a package all modules of the package count; of one in a module of its own, that module and the modules
beside it that it imports. What is installed has its own versions and does not count. Nothing is imported for it.
"""

import ast
import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

__all__ = ["Code", "code_of"]

_GIT_S = 10.0


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """The code behind a version."""

    digest: str = ""
    """SHA-256 over the names and digests of `files`; empty: the user's files were not found."""
    files: dict[str, str] = {}
    """SHA-256 by path from the folder that they are imported from."""
    commit: str = ""
    """Of the repository that holds them, with `-dirty` where a tracked file differs; empty: none is known."""
    tidemill: str = ""
    """Version of this package."""


def code_of(paths: Sequence[str]) -> Code:
    """The code behind classes named `module:Class`, as it stands now."""
    files: dict[str, str] = {}
    commit = ""
    for path in paths:
        top = path.partition(":")[0].partition(".")[0]
        spec = PathFinder.find_spec(top)
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        folder = origin.parent.parent if spec.submodule_search_locations else origin.parent
        installed = "site-packages" in folder.parts
        for file in sorted(_beside(folder, top, alone=installed)):
            files[file.relative_to(folder).as_posix()] = hashlib.sha256(file.read_bytes()).hexdigest()
        commit = commit or ("" if installed else _commit(folder))
    listed = "\n".join(f"{name} {digest}" for name, digest in sorted(files.items()))
    digest = hashlib.sha256(listed.encode()).hexdigest() if files else ""
    return Code(digest=digest, files=dict(sorted(files.items())), commit=commit, tidemill=_own_version())


def _beside(folder: Path, top: str, *, alone: bool) -> set[Path]:
    """The files of a module or package of the folder, and unless it is `alone`, of those that it imports from there."""
    found: set[Path] = set()
    waiting, seen = [top], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        package = folder / name
        files = set(package.rglob("*.py")) if package.is_dir() else {package.with_suffix(".py")}
        files = {file for file in files if file.is_file()}
        found |= files
        if not alone:
            waiting += [imported for file in files for imported in _imports(file)]
    return found


def _imports(file: Path) -> Iterator[str]:
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):  # its own digest counts all the same
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, env=env, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""


def _own_version() -> str:
    try:
        return version("tidemill")
    except PackageNotFoundError:
        return ""
