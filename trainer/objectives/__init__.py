"""What a run minimises, a module an objective: `base.py` says what one does, `masked.py` is masked autoencoding."""
