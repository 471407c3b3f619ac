"""Everything of the chart and the manifests that is made from something else: `python -m helm.generate`.

    files/crd.yaml            from the Pydantic classes (`tidemill.spec.crd`)
    files/rules.yaml          from manifests/prometheus/rules.yaml, with the pages of docs/kubernetes/runbook.md
    files/dashboards/*.json   from `helm.generate.dashboards`
    values.schema.json        from values.yaml and the settings (`helm.generate.values`)
    README.md                 likewise
    manifests/                what the chart renders, for those without Helm (`helm.generate.manifests`)

A test makes all of it anew and compares.
"""
