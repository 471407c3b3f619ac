"""Phone inspection: the example that `make demo` runs. Pictures, the model's two classes, the factory and the story."""
