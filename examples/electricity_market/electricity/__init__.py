"""The electricity market: a model whose labels come a day late, and other ways to answer beside it."""
