"""What the documents show is true: the resource is valid, links lead somewhere, commands exist."""

import re
from pathlib import Path

import pytest

from tidemill.cli import COMMANDS
from tidemill.spec.load import loads

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_resource_in_the_readme_is_valid_and_short() -> None:
    text = (ROOT / "README.md").read_text()
    resource = re.search(r"<!-- resource -->\n```yaml\n(.*?)```", text, re.DOTALL)
    assert resource is not None
    model = loads(resource[1], "README.md")
    assert model.metadata.name == "phone-inspection"
    assert len(resource[1].splitlines()) <= 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page: Path) -> None:
    shown = set(re.findall(r"^\$ tidemill ([a-z]+)", page.read_text(), re.MULTILINE))
    assert shown <= set(COMMANDS), f"{page.name} shows {shown - set(COMMANDS)}"
