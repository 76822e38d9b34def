"""What users import into their tests: contracts of loaders, codecs, shard formats and sources; readers that fail."""
