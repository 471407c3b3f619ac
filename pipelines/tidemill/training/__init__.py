"""From labelled events to a version: snapshot, the user's classes, the training loop, export, and the predictor.

Nothing here imports torch with the module; `fit` and `export` do when they run.
"""
