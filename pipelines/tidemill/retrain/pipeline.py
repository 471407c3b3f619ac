"""The KFP pipeline `retrain`, and its compiler: `python -m tidemill.retrain.pipeline` writes pipelines/retrain.yaml.

Its parameters are plain and have defaults, so that the form of the KFP UI can start it. KFP's traps, and what is done
about them: a `dsl.If` on a named output is silently False on the local runner, so both conditions look at the single
unnamed output of a step; conditions are evaluated as text, so these outputs are bools; caching would return an older
run's model, so it is off. A step that is killed says nothing: its grant ends with what the runner shows of the run, or
with its time. KFP has no time-outs of its own, so a step keeps its (`steps.LIMITS_S`).
"""

# mypy: disable-error-code="untyped-decorator,no-any-return"
# KFP has no types, and reads ours at run time: they must not be strings.
from pathlib import Path

from kfp import compiler, dsl

from tidemill.retrain import COMPILED

__all__ = ["compile_to", "retrain"]

IMAGE = "tidemill-pipelines"
"""What the steps run in unless the parameter `image` says otherwise: `docker build --target pipelines`."""

_component = dsl.component(base_image=IMAGE, packages_to_install=[], install_kfp_package=False)


@_component
def claim(
    model: str,
    reason: str,
    force: bool,
    skip_gates: bool,
    image: str,
    run_name: str,
    run_id: str,
    grant: dsl.Output[dsl.Artifact],
) -> bool:
    """Ask control for the right to run."""
    from tidemill.retrain import entry

    asked = {"reason": reason, "force": force, "skip_gates": skip_gates, "image": image}
    return entry.run("claim", model=model, **asked, run_name=run_name, run_id=run_id, granted=grant.path)


@_component
def snapshot(model: str, wanted: str, grant: dsl.Input[dsl.Artifact], dataset: dsl.Output[dsl.Dataset]) -> None:
    """Write what is labelled and mature now, split by time; or take a dataset that is there."""
    from tidemill.retrain import entry

    dataset.metadata.update(entry.run("snapshot", model=model, wanted=wanted, granted=grant.path, taken=dataset.path))


@_component
def validate(
    model: str, grant: dsl.Input[dsl.Artifact], dataset: dsl.Input[dsl.Dataset], verdicts: dsl.Output[dsl.Artifact]
) -> None:
    """Fail where the dataset is not fit to learn from."""
    from tidemill.retrain import entry

    entry.run("validate", model=model, granted=grant.path, taken=dataset.path, verdicts=verdicts.path)


@_component
def train(
    model: str,
    grant: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    candidate: dsl.Output[dsl.Model],
) -> None:
    """Train, from the champion's weights where the spec says so, and write the version."""
    from tidemill.retrain import entry

    candidate.metadata.update(
        entry.run("train", model=model, granted=grant.path, taken=dataset.path, candidate=candidate.path)
    )


@_component
def evaluate(
    model: str,
    grant: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Metrics],
    candidate: dsl.Output[dsl.ClassificationMetrics],
    champion: dsl.Output[dsl.ClassificationMetrics],
) -> None:
    """Let candidate and champion answer the same fresh rows."""
    from tidemill.retrain import entry

    found = entry.run("evaluate", model=model, granted=grant.path, taken=dataset.path, evaluation=evaluation.path)
    evaluation.metadata.update(found["figures"])
    for artifact, (names, counts) in ((candidate, found["candidate"]), (champion, found["champion"])):
        if names:
            artifact.log_confusion_matrix(names, counts)


@_component
def gate(
    model: str,
    grant: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Metrics],
    of_data: dsl.Input[dsl.Artifact],
    verdicts: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> bool:
    """Judge the candidate, and write the page that shows it."""
    from tidemill.retrain import entry

    files = {"taken": dataset.path, "evaluation": evaluation.path, "of_data": of_data.path}
    written = {"verdicts": verdicts.path, "report": report.path}
    return entry.run("gate", model=model, granted=grant.path, **files, **written)


@_component
def register(
    model: str,
    grant: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Metrics],
    verdicts: dsl.Input[dsl.Artifact],
) -> str:
    """Enter the version into the registry."""
    from tidemill.retrain import entry

    files = {"taken": dataset.path, "evaluation": evaluation.path, "verdicts": verdicts.path}
    return entry.run("register", model=model, granted=grant.path, **files)


@_component
def propose(model: str, grant: dsl.Input[dsl.Artifact], verdicts: dsl.Input[dsl.Artifact], artifact: str) -> None:
    """Hand the version to control, which starts its rollout."""
    from tidemill.retrain import entry

    entry.run("propose", model=model, granted=grant.path, verdicts=verdicts.path, artifact=artifact)


_snapshot = snapshot  # the parameter of this name hides it


@dsl.pipeline(name="retrain", description="Train a new version of a ContinualModel and propose it for a rollout.")
def retrain(
    model: str = "",
    reason: str = "started by hand",
    force: bool = False,
    skip_gates: bool = False,
    snapshot: str = "",
    image: str = IMAGE,
) -> None:
    """The pipeline.

    Args:
        model: id of the ContinualModel, `<namespace>.<name>`.
        reason: why, in words; it stands in the audit.
        force: run although the model is paused or the budget is spent.
        skip_gates: judge the gates and show them, but do not enforce them.
        snapshot: digest of a snapshot, or name of a frozen dataset, to learn from again; empty: a new one.
        image: what the steps run in; must be the resource's `spec.model.image` where it names one.
    """

    def step(task: dsl.PipelineTask, *, retries: int = 2) -> dsl.PipelineTask:
        task.set_container_image(image)
        task.set_caching_options(False)
        # Every step may be repeated: it finds what an earlier try has written, or writes it again.
        return task.set_retry(retries, backoff_duration="1s", backoff_factor=4, backoff_max_duration="60s")

    who = {"run_name": dsl.PIPELINE_JOB_NAME_PLACEHOLDER, "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}
    claimed = step(claim(model=model, reason=reason, force=force, skip_gates=skip_gates, image=image, **who))
    with dsl.If(claimed.outputs["Output"] == True, name="granted"):  # noqa: E712
        grant = claimed.outputs["grant"]
        taken = step(_snapshot(model=model, wanted=snapshot, grant=grant))
        dataset = taken.outputs["dataset"]
        valid = step(validate(model=model, grant=grant, dataset=dataset), retries=0)
        trained = step(train(model=model, grant=grant, dataset=dataset)).after(valid)
        scored = step(evaluate(model=model, grant=grant, dataset=dataset)).after(trained)
        evaluation = scored.outputs["evaluation"]
        of_data = valid.outputs["verdicts"]
        judged = step(gate(model=model, grant=grant, dataset=dataset, evaluation=evaluation, of_data=of_data))
        verdicts = judged.outputs["verdicts"]
        with dsl.If(judged.outputs["Output"] == True, name="passed"):  # noqa: E712
            known = {"dataset": dataset, "evaluation": evaluation, "verdicts": verdicts}
            registered = step(register(model=model, grant=grant, **known))
            step(propose(model=model, grant=grant, verdicts=verdicts, artifact=registered.output))


def compile_to(path: Path) -> None:
    """Compile the pipeline into a YAML file."""
    compiler.Compiler().compile(retrain, str(path))


if __name__ == "__main__":
    compile_to(COMPILED)
