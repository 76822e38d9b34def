"""Writers and readers of shards."""
