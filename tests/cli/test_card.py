"""The command that shows a model card."""

from pathlib import Path

import pytest

from tidemill.cli import main
from tidemill.control.store import LocalResourceStore
from tidemill.core.clock import SystemClock
from tidemill.registry import Registry
from tidemill.testing.loop import example_resource
from tidemill.testing.registry import MemoryRegistry
from tidemill.wiring import Local

MODEL = "default.phone-inspection"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Two versions whose artifacts are gone, of which the first serves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIDEMILL_STATE", raising=False)
    LocalResourceStore(tmp_path / ".tidemill" / "resources").put(example_resource(), code=str(tmp_path))
    made = MemoryRegistry(SystemClock())
    for version in ("r1", "r2"):
        made.register(MODEL, version, str(tmp_path / version), description=f"# {version} [red]")
    made.register(MODEL, "r0", str(tmp_path / "r0"))
    made.set_alias(MODEL, "champion", "r1")
    monkeypatch.setattr(Local, "registry", made)
    return made


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main("card", "phone-inspection", *arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out + err


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("asked", "said"), [((), "# r1 [red]\n"), (("r2",), "# r2 [red]\n"), (("champion",), "# r1 [red]\n")]
)
def test_the_card_of_a_version_is_shown_as_it_is(
    capsys: pytest.CaptureFixture[str], asked: tuple[str, ...], said: str
) -> None:
    assert shown(capsys, *asked) == (0, said)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(("asked", "said"), [("r9", "the newest are: r1, r2, r0"), ("r0", "has no model card")])
def test_a_version_without_a_card_is_told(capsys: pytest.CaptureFixture[str], asked: str, said: str) -> None:
    status, text = shown(capsys, asked)
    assert (status, said in text) == (3, True), text
