"""What a labelled run is worth: predictions in a file, and every score and interval from that file alone."""
