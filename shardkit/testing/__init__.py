"""Shipped test helpers: radiographs that look real, and PACS exports whose right outcome is known."""
