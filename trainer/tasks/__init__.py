"""What a labelled run does: targets from labels, a loss, scores."""
