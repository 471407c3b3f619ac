"""The KFP pipeline `retrain`, and its compiler: `python -m tidemill.retrain.pipeline` writes pipelines/retrain.yaml.

Its parameters are plain and have defaults, so that the form of the KFP UI can start it. KFP's traps, and what is done
about them: a `dsl.If` on a named output is silently False on the local runner, so both conditions look at the single
unnamed output of a step; conditions are evaluated as text, so these outputs are bools; caching would return an older
run's model, so it is off.
"""

# mypy: disable-error-code="untyped-decorator,no-any-return"
# KFP has no types, and reads ours at run time: they must not be strings.
from pathlib import Path

from kfp import compiler, dsl

from tidemill.retrain import COMPILED

__all__ = ["compile_to", "retrain"]

_component = dsl.component(base_image="python:3.11-slim", packages_to_install=[], install_kfp_package=False)


@_component
def claim(model: str, reason: str, force: bool, skip_gates: bool, grant: dsl.Output[dsl.Artifact]) -> bool:
    """Ask control for the right to run."""
    from tidemill.retrain import entry

    return entry.run("claim", model=model, reason=reason, force=force, skip_gates=skip_gates, granted=grant.path)


@_component
def snapshot(model: str, grant: dsl.Input[dsl.Artifact], dataset: dsl.Output[dsl.Dataset]) -> None:
    """Write what is labelled and mature now, split by time."""
    from tidemill.retrain import entry

    dataset.metadata.update(entry.run("snapshot", model=model, granted=grant.path, taken=dataset.path))


@_component
def validate(model: str, grant: dsl.Input[dsl.Artifact], dataset: dsl.Input[dsl.Dataset]) -> None:
    """Fail where the dataset is not fit to learn from."""
    from tidemill.retrain import entry

    entry.run("validate", model=model, granted=grant.path, taken=dataset.path)


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
) -> None:
    """Let candidate and champion answer the same fresh rows."""
    from tidemill.retrain import entry

    evaluation.metadata.update(
        entry.run("evaluate", model=model, granted=grant.path, taken=dataset.path, evaluation=evaluation.path)
    )


@_component
def gate(
    model: str,
    grant: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Metrics],
    verdicts: dsl.Output[dsl.Artifact],
) -> bool:
    """Judge the candidate."""
    from tidemill.retrain import entry

    return entry.run("gate", model=model, granted=grant.path, evaluation=evaluation.path, verdicts=verdicts.path)


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


@dsl.pipeline(name="retrain", description="Train a new version of a ContinualModel and propose it for a rollout.")
def retrain(model: str = "", reason: str = "started by hand", force: bool = False, skip_gates: bool = False) -> None:
    """The pipeline.

    Args:
        model: id of the ContinualModel, `<namespace>.<name>`.
        reason: why, in words; it stands in the audit.
        force: run although the model is paused or the budget is spent.
        skip_gates: judge the gates and show them, but do not enforce them.
    """
    claimed = claim(model=model, reason=reason, force=force, skip_gates=skip_gates).set_caching_options(False)
    with dsl.If(claimed.outputs["Output"] == True, name="granted"):  # noqa: E712
        grant = claimed.outputs["grant"]
        taken = snapshot(model=model, grant=grant).set_caching_options(False)
        dataset = taken.outputs["dataset"]
        valid = validate(model=model, grant=grant, dataset=dataset).set_caching_options(False)
        trained = train(model=model, grant=grant, dataset=dataset).set_caching_options(False).after(valid)
        scored = evaluate(model=model, grant=grant, dataset=dataset).set_caching_options(False).after(trained)
        evaluation = scored.outputs["evaluation"]
        judged = gate(model=model, grant=grant, evaluation=evaluation).set_caching_options(False)
        verdicts = judged.outputs["verdicts"]
        with dsl.If(judged.outputs["Output"] == True, name="passed"):  # noqa: E712
            registered = register(
                model=model, grant=grant, dataset=dataset, evaluation=evaluation, verdicts=verdicts
            ).set_caching_options(False)
            propose(model=model, grant=grant, verdicts=verdicts, artifact=registered.output).set_caching_options(False)


def compile_to(path: Path) -> None:
    """Compile the pipeline into a YAML file."""
    compiler.Compiler().compile(retrain, str(path))


if __name__ == "__main__":
    compile_to(COMPILED)
