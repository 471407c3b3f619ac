"""The electricity market: a model whose labels come a day late, and how it is kept right, beside other ways to do so."""
