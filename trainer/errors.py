"""What a run raises on purpose, besides what `shardkit.errors` has. A message is one sentence, as there."""

from shardkit.errors import ShardkitError


class TrainingError(ShardkitError):
    """A run cannot go on: the loss is not finite, or its folder holds another run."""
