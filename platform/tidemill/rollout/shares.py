"""Which shares the versions get for now, when not all that are wanted can serve yet."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

__all__ = ["shares_now"]


def shares_now(wanted: Mapping[str, int], ready: AbstractSet[str], current: Mapping[str, int]) -> dict[str, int]:
    """Shares of the ready versions; what an unready one was to get goes to the largest of them.

    While none of those that are to have traffic can serve, versions on their way out go on. A version that is wanted
    with 0 never does.

    Args:
        wanted: the share of each version that is to exist, in percent.
        ready: the versions that can serve.
        current: the shares that are given out now, to versions on their way out, too.
    """
    shares = {version: share for version, share in wanted.items() if version in ready and share > 0}
    if not shares and any(wanted.values()):
        leaving = ready - wanted.keys()
        shares = {version: share for version, share in current.items() if share and version in leaving}
    if shares:
        largest = max(sorted(shares), key=lambda version: shares[version])
        shares[largest] += 100 - sum(shares.values())
    return shares
