"""A version by what people call it, and its model card."""

from tidemill.artifacts import local_folder, manifest_of, read
from tidemill.core.errors import NotFound
from tidemill.registry.protocol import RegisteredVersion, Registry

__all__ = ["card_of", "find_version"]


def find_version(registry: Registry, model: str, wanted: str) -> RegisteredVersion:
    """A version by its id or an alias. Raises `NotFound` naming the newest, `Unavailable`."""
    versions = registry.versions(model)
    aliases = {str(alias): name for alias, name in registry.aliases(model).items()}
    named = aliases.get(wanted, wanted)
    found = next((one for one in versions if one.version == named), None)
    if found is not None:
        return found
    known = ", ".join(one.version for one in versions[-5:])
    raise NotFound(
        f"{model} has no version {wanted}", hint=f"the newest are: {known}" if known else "none was made yet"
    )


def card_of(found: RegisteredVersion) -> str:
    """The model card in Markdown: the whole one of the artifact, else what the registry keeps of it; "" without."""
    try:
        folder = local_folder(found.artifact)
        return read(folder, manifest_of(folder), "card.md").decode() or found.description
    except NotFound:
        return found.description
