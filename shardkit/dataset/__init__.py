"""A finished dataset on storage: description, manifest, bins; checks of all that is read."""
