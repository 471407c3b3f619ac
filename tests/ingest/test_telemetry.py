"""What ingest tells from its start, and what bounds it."""

from tests.ingest.conftest import Resource

from tidemill.core.telemetry import MOST, REGISTRY, REST
from tidemill.ingest.telemetry import begin


def fields_of(model: str) -> set[str]:
    return {
        sample.labels["field"]
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "tidemill_ingest_quarantined_total" and sample.labels["model"] == model
    }


def test_zeros_are_told_from_the_start(make_resource: Resource, topic_prefix: str) -> None:
    resource = make_resource(topic_prefix)
    label = begin(resource)
    assert REGISTRY.get_sample_value("tidemill_ingest_events_total", {"model": resource.id}) == 0
    assert fields_of(resource.id) >= {"", "station", "captured_at", "event_id", "exposure_ms"}
    assert (label("exposure_ms"), label(None)) == ("exposure_ms", "")


def test_of_a_thousand_fields_fifty_have_a_series_of_their_own(make_resource: Resource, topic_prefix: str) -> None:
    many = [{"name": f"f{number}", "type": "float"} for number in range(1000)]
    resource = make_resource(topic_prefix, {"image": []}, fields=many)
    label = begin(resource)
    assert label("f999") == REST
    assert len(fields_of(resource.id)) <= MOST + 2
