"""What users import into their tests: the contracts of loaders, codecs and shard formats, and readers that fail."""
