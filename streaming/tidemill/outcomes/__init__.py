"""Labels resolved and joined with predictions, judged at the right age."""
