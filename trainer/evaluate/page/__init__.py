"""The page about runs at sites, a module a section; every number on it comes from tables of predictions."""
