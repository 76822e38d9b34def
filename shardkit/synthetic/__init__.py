"""Synthetic radiographs and PACS exports with known defects."""
