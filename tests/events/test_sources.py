import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import InvalidInput
from tidemill.events.sources import Source

WORDS = st.text("abcXYZ019_-", min_size=1, max_size=22)


@given(WORDS, WORDS, st.integers(0, 10_000))
def test_a_source_reads_back_from_its_text(cluster: str, topic_id: str, partition: int) -> None:
    source = Source(cluster, topic_id, partition)
    assert Source.parse(str(source)) == source


@pytest.mark.parametrize("text", ["", "a", "a/b", "a/b/", "a/b/x", "/b/0", "a//0", "a/b/-1"])
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="cluster/topic_id/partition"):
        Source.parse(text)
