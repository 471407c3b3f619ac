"""Who is believed to be there, and what their role allows."""

import pytest

from tidemill.core.errors import InvalidInput
from tidemill.core.settings import Settings
from tidemill.dashboard.viewers import Action, Forbidden, Role, Trust, Viewer, is_loopback

PROXIED = Settings(
    dashboard_host="0.0.0.0",  # noqa: S104 -- behind a proxy
    dashboard_identity_header="X-Forwarded-User",
    dashboard_proxies="10.1.0.0/16, ::1",
    dashboard_roles="ada=approver, ben = labeller,*=viewer",
)
HEADER = "x-forwarded-user"


def test_on_this_machine_alone_everyone_is_its_user_and_may_do_all() -> None:
    viewer = Trust.of(Settings()).viewer({HEADER: "somebody else"}, "127.0.0.1")
    assert viewer is not None
    assert viewer.name != "somebody else"
    assert viewer.may("promote")


def test_beyond_this_machine_a_header_is_needed() -> None:
    with pytest.raises(InvalidInput, match="has no accounts"):
        Trust.of(Settings(dashboard_host="0.0.0.0"))  # noqa: S104


@pytest.mark.parametrize(
    ("name", "role"), [("ada", "approver"), ("ben", "labeller"), ("eve", "viewer"), ("ada ", "approver")]
)
def test_the_header_names_the_viewer_and_the_settings_their_role(name: str, role: Role) -> None:
    assert Trust.of(PROXIED).viewer({HEADER: name}, "10.1.2.3") == Viewer(name.strip(), role)


@pytest.mark.parametrize("peer", ["10.2.0.1", "127.0.0.1", "", None, "unix"])
def test_the_header_is_believed_from_the_proxies_alone(peer: str | None) -> None:
    assert Trust.of(PROXIED).viewer({HEADER: "ada"}, peer) is None


@pytest.mark.parametrize("name", ["", " ", "a" * 201, "ada\x1b[2J"])
def test_a_name_that_is_none_is_nobodys(name: str) -> None:
    assert Trust.of(PROXIED).viewer({HEADER: name}, "10.1.2.3") is None
    assert Trust.of(PROXIED).viewer({}, "10.1.2.3") is None


@pytest.mark.parametrize(
    ("setting", "text", "told"),
    [
        ("dashboard_roles", "ada", "'ada' is no name=role"),
        ("dashboard_roles", "ada=owner", "'ada=owner' is no name=role"),
        ("dashboard_roles", "=viewer", "is no name=role"),
        ("dashboard_proxies", "10.1.0.0/40", "dashboard_proxies"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str, text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        Trust.of(PROXIED.model_copy(update={setting: text}))


@pytest.mark.parametrize(
    ("role", "action", "allowed"),
    [
        ("viewer", "label", False),
        ("labeller", "label", True),
        ("approver", "label", True),
        ("labeller", "approve", False),
        ("approver", "retrain", True),
        ("viewer", "pause", False),
    ],
)
def test_a_role_allows_what_lesser_roles_do(role: Role, action: Action, allowed: bool) -> None:
    viewer = Viewer("ada", role)
    assert viewer.may(action) is allowed
    if not allowed:
        with pytest.raises(Forbidden, match=f"ada is a {role}: to {action} takes"):
            viewer.check(action)


@pytest.mark.parametrize(("host", "own"), [("127.0.0.1", True), ("localhost", True), ("[::1]", True), ("x", False)])
def test_a_host_is_this_machines_own_or_not(host: str, own: bool) -> None:
    assert is_loopback(host) is own
