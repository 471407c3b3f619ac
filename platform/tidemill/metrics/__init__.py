"""Losses of one outcome, and quality as accumulators that merge."""
