"""From byte ranges to checked bytes in memory: readers and their wrappers, the disk cache, bounded read-ahead."""
