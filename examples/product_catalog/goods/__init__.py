"""A marketplace's catalogue: made products, the model that sorts them, the desks that label them, and one day of it."""
