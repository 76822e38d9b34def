"""What a run minimises: the error of masked autoencoding, and what others add."""
