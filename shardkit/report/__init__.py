"""The pages about a dataset, and their plots."""
