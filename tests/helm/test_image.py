"""The image: linted, a target for each role, each with the extra of its role. (Nothing here can build it.)"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from helm.generate.__main__ import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
ROLES = {
    "operator",
    "feast",
    "ingest",
    "outcomes",
    "watch",
    "alerts",
    "feedback",
    "dashboard",
    "serve",
    "pipelines",
    "model",
}


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    run = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (0, "")


def test_each_role_has_a_target_with_an_extra_that_exists() -> None:
    found = dict(re.findall(r"^FROM role AS (\w+)\nCOPY --from=with-(\w+) ", TEXT, re.MULTILINE))
    assert found.keys() == ROLES
    installed = re.findall(r'"\.\[([a-z,]+)\]"', TEXT)
    assert {extra for one in installed for extra in one.split(",")} <= EXTRAS.keys()
    for extra in set(found.values()):
        assert re.search(rf'^FROM source AS with-{extra}\nRUN \${{INSTALL}} "\.\[[a-z,]+\]"$', TEXT, re.MULTILINE)


def test_no_role_runs_as_root_and_versions_are_those_of_the_lock() -> None:
    role = TEXT[TEXT.index(" AS role\n") :]
    assert "USER 10001:10001" in role
    assert "USER root" not in TEXT
    assert "--constraint .ci/requirements.txt" in TEXT
    assert "--hash=sha256:" in (ROOT / ".ci/requirements.txt").read_text()
