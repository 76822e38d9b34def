"""Train on radiographs of any size; sees only shardkit's public names."""
