"""Published settings as data, a module a study."""
