"""From an export to a dataset: scan, plan shards, ingest, finalize; one run at a time, resumable at any moment."""
