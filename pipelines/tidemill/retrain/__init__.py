"""The KFP pipeline and its steps; pipelines/retrain.yaml is compiled from here."""
