"""From a dataset to batches: fetch, cache, verify, decode, normalise, collate."""
