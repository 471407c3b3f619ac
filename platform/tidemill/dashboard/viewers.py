"""Who looks, and what they may do: the identity that a trusted reverse proxy says, and a role for each name.

On this machine alone, without such a header, whoever reaches the page is the machine's user and may do all. Beyond it
the header is believed from the addresses of `dashboard_proxies` only, and whoever comes another way is refused.
"""

import getpass
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tidemill.core.errors import InvalidInput, Permanent
from tidemill.core.settings import Settings

__all__ = ["Action", "Forbidden", "Role", "Trust", "Viewer", "is_loopback"]

Role = Literal["viewer", "labeller", "approver"]
Action = Literal["label", "approve", "pause", "resume", "abort", "promote", "revert", "retrain"]

_ROLES: tuple[Role, ...] = get_args(Role)
_NEEDS: Mapping[Action, Role] = {"label": "labeller"}
"""The least role of an action; all others need an approver."""
_LONGEST_NAME = 200
_EVERYONE = "*"
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Forbidden(Permanent):
    """The viewer's role is not enough."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Someone who looks at a page. An approver may do what a labeller may."""

    name: str
    role: Role

    def may(self, action: Action) -> bool:
        """Whether the role is enough."""
        return _ROLES.index(self.role) >= _ROLES.index(self._needed(action))

    def check(self, action: Action) -> None:
        """Raise `Forbidden` where it is not."""
        if not self.may(action):
            needed = self._needed(action)
            raise Forbidden(f"{self.name} is a {self.role}: to {action} takes a {needed}", hint="see dashboard_roles")

    @staticmethod
    def _needed(action: Action) -> Role:
        return _NEEDS.get(action, "approver")


@dataclass(frozen=True)
class Trust:
    """Whom a request is believed to be from."""

    header: str | None
    """In lower case; None: everyone is the machine's user."""
    proxies: tuple[_Network, ...]
    roles: Mapping[str, Role]

    @classmethod
    def of(cls, settings: Settings) -> "Trust":
        """As the settings say. Raises `InvalidInput` where they make no sense, or let in the whole network."""
        header = settings.dashboard_identity_header
        if header is None and not is_loopback(settings.dashboard_host):
            raise InvalidInput(
                f"the dashboard has no accounts, and dashboard_host {settings.dashboard_host} is not loopback",
                hint="set dashboard_identity_header to the header of a reverse proxy that has, or dashboard_host to "
                "127.0.0.1",
            )
        return cls(header.lower() if header else None, _networks(settings.dashboard_proxies), _roles(settings))

    def viewer(self, headers: Mapping[str, str], peer: str | None) -> Viewer | None:
        """Who sent this, by its headers (names in lower case) and the address that it came from; None: nobody known."""
        if self.header is None:
            return Viewer(_user(), "approver")
        name = headers.get(self.header, "").strip()
        if not name or len(name) > _LONGEST_NAME or not name.isprintable() or not self._is_proxy(peer):
            return None
        return Viewer(name, self.roles.get(name, self.roles.get(_EVERYONE, "viewer")))

    def _is_proxy(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        return any(address in network for network in self.proxies)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _roles(settings: Settings) -> dict[str, Role]:
    found: dict[str, Role] = {}
    for part in filter(None, (one.strip() for one in settings.dashboard_roles.split(","))):
        name, _, text = part.rpartition("=")
        role = next((one for one in _ROLES if one == text.strip()), None)
        if role is None or not name.strip():
            raise InvalidInput(
                f"dashboard_roles: {part!r} is no name=role", hint=f"a role is one of {', '.join(_ROLES)}"
            )
        found[name.strip()] = role
    return found


def _networks(text: str) -> tuple[_Network, ...]:
    try:
        return tuple(ipaddress.ip_network(one.strip()) for one in text.split(",") if one.strip())
    except ValueError as error:
        raise InvalidInput(f"dashboard_proxies: {error}", hint="addresses or networks, such as 10.0.0.0/8") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "dashboard"
