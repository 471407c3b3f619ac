"""Writes everything that is generated; see the package."""

import argparse
import json
import re
import shutil
from pathlib import Path

from helm.generate import dashboards, manifests, values

from tidemill.spec import crd

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "tidemill"


def generated() -> dict[Path, str]:
    """The text of each generated file of the chart."""
    source = (CHART / "values.yaml").read_text()
    files = CHART / "files"
    return {
        files / "crd.yaml": crd.text(),
        files / "rules.yaml": alerts((ROOT / "manifests/prometheus/rules.yaml").read_text()),
        CHART / "values.schema.json": json.dumps(values.schema(source), indent=2, ensure_ascii=False) + "\n",
        CHART / "README.md": values.readme(source, (CHART / "README.md").read_text()),
        **{files / "dashboards" / f"{name}.json": text for name, text in dashboards.texts().items()},
    }


def alerts(rules: str) -> str:
    """The rules of one machine, with the pages of a cluster: each alert has its own heading in the runbook."""
    lines, alert = [], ""
    for line in rules.splitlines():
        found = re.search(r"- alert: (\w+)", line)
        alert = found[1] if found else alert
        lines.append(re.sub(r"(runbook_url: ).*", rf"\g<1>docs/kubernetes/runbook.md#{alert.lower()}", line))
    return "\n".join(line for line in lines if not line.startswith("# runbook_url")) + "\n"


def main() -> None:
    """Write the chart's files, then render the manifests where there is a helm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--helm", default=shutil.which("helm") or str(ROOT / ".bootstrap/cluster/bin/helm"))
    helm = Path(parser.parse_args().helm)
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if not helm.exists():
        print("manifests: left as they are, since there is no helm (`make cluster` builds one)")
        return
    for path, text in manifests.rendered(helm, CHART, ROOT / "manifests").items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
