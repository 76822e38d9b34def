"""What pre-training minimises, and what it looks like."""
