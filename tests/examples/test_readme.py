"""The README says what is so: its resource is valid, its classes are the example's, its commands and paths exist."""

import re
from pathlib import Path

import pytest

from tidemill.cli import COMMANDS
from tidemill.spec.load import load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(marker: str, language: str) -> str:
    """The fenced block after a marker."""
    found = re.search(rf"<!-- {marker} -->\n```{language}\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no {marker}"
    return found[1]


def test_the_resource_is_valid_and_about_25_lines(tmp_path: Path) -> None:
    text = block("resource", "yaml")
    file = tmp_path / "model.yaml"
    file.write_text(text)
    assert load(file).id == "default.phone-inspection"
    assert len(text.splitlines()) <= 27


def test_the_two_classes_are_those_of_the_example(example: Path) -> None:
    source = (example / "inspection" / "model.py").read_text()
    assert block("classes", "python").strip() == source[source.index("class Codec") :].strip()


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"(?:^\$|`)(?: \w+=\S+)? ?tidemill (\w+)", README, re.MULTILINE)))
)
def test_a_command_that_is_shown_exists(command: str) -> None:
    assert command in COMMANDS


def test_the_demo_and_the_path_of_a_new_user_are_shown() -> None:
    for line in (
        "$ make demo",
        "$ tidemill up",
        "$ tidemill apply -f examples/phone_inspection/model.yaml",
        "make test",
    ):
        assert line in README


def test_every_path_and_link_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    words = re.findall(r"`((?:examples|platform|pipelines|streaming|feature_store|docs)/[\w./-]*)", README)
    assert links
    assert words
    for path in {*links, *words}:
        assert (ROOT / path).exists(), path
