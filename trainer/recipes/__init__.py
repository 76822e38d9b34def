"""Published settings as data."""
