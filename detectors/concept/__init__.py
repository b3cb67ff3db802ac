"""Concept drift: error rates, and what scores mean."""
