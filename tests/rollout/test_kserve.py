"""What is stated of an InferenceService, and what is read from one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import Unsupported
from tidemill.rollout.driver import RevisionWanted
from tidemill.rollout.kserve import failure, inference_service, name_of, stated
from tidemill.testing.loop import example_resource


def status(transition: str, **info: Any) -> dict[str, Any]:
    return {"status": {"modelStatus": {"transitionStatus": transition, "lastFailureInfo": info}}}


def test_a_server_that_ended_for_good_has_the_last_word() -> None:
    message = "starting\nerror: model.onnx is not the file that was written\nhint: retrain"
    found = failure(status("BlockedByFailedLoad", reason="ModelLoadFailed", message=message, exitCode=1))
    assert found == "ModelLoadFailed: model.onnx is not the file that was written (exit status 1)"


def test_a_spec_that_kserve_cannot_use_is_a_failure_without_a_server() -> None:
    found = failure(status("InvalidSpec", reason="RuntimeNotRecognized", message="Waiting for runtime"))
    assert found == "RuntimeNotRecognized: Waiting for runtime"


@pytest.mark.parametrize(
    "seen",
    [
        status("InProgress", reason="ModelLoadFailed"),
        status("UpToDate"),
        status("BlockedByFailedLoad", reason="ModelLoadFailed", message="no broker answers", exitCode=5),
        {"status": {}},
        {},
    ],
    ids=["in progress", "up to date", "a broker that is down", "no model status", "no status"],
)
def test_what_may_yet_become_ready_has_not_failed(seen: dict[str, Any]) -> None:
    assert failure(seen) is None


@pytest.mark.parametrize("uri", ["s3://m/v1", "gs://m/v1", "pvc://claim/v1", "oci://registry.example/m:v1"])
def test_kserve_fetches_versions_from_where_they_are(uri: str) -> None:
    made = inference_service(example_resource(), _version(uri), name="m-v1", mode="Standard")
    assert made["spec"]["predictor"]["model"]["storageUri"] == uri


@pytest.mark.parametrize("uri", ["/artifacts/v1", "file:///artifacts/v1", "ftp://m/v1"])
def test_an_artifact_that_kserve_cannot_fetch_is_refused_with_what_it_can(uri: str) -> None:
    with pytest.raises(Unsupported, match="KServe cannot fetch") as caught:
        inference_service(example_resource(), _version(uri), name="m-v1", mode="Standard")
    assert "s3" in (caught.value.hint or "")


def test_what_is_declared_of_serving_reaches_the_predictor_in_kserves_own_form() -> None:
    resource = example_resource(
        serving={"replicas": 3, "serviceAccountName": "reader"},
        model={
            "codec": "a:B",
            "trainer": "a:C",
            "image": "registry.example/inspection:1",
            "resources": {"cpu": 0.5, "memory": "2048Mi"},
        },
    )
    predictor = inference_service(resource, _version("s3://m/v1"), name="m-v1", mode="Standard")["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"], predictor["serviceAccountName"]) == (3, 3, "reader")
    model = predictor["model"]
    assert model["image"] == "registry.example/inspection:1"
    assert model["resources"] == {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}


def test_what_a_server_added_is_no_difference_and_what_it_changed_is() -> None:
    wanted = {"a": 1, "list": [{"x": 1}]}
    assert stated({"a": 1, "b": 2, "list": [{"x": 1, "y": 2}]}, wanted)
    assert not stated({"a": 2, "list": [{"x": 1}]}, wanted)
    assert not stated({"a": 1, "list": [{"x": 1}, {"x": 2}]}, wanted)
    assert not stated({"a": 1}, wanted)


NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
VERSIONS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,61}[a-z0-9]", fullmatch=True)


@given(NAMES, VERSIONS)
def test_every_name_is_a_label_that_kserve_can_lengthen(model: str, version: str) -> None:
    name = name_of(model, version)
    assert len(f"isvc.{name}-predictor") <= 63
    assert name[0].isalpha()
    assert name[-1].isalnum()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def _version(uri: str) -> RevisionWanted:
    return RevisionWanted(version="v1", artifact=uri, share=100)
