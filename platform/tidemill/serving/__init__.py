"""The KServe predictor and the prediction log."""
