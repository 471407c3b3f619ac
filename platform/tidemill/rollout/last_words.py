"""What a server said last, for the reason of a rollout that ends because of it."""

__all__ = ["last_words"]


def last_words(text: str) -> str:
    """The error that it ended with: what `tidemill` shows after `error:`, else the last line; empty without one."""
    _, is_told, error = text.rpartition("error: ")
    if is_told:
        return " ".join(error.partition("hint: ")[0].split())
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
