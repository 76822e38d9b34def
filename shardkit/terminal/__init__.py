"""What reaches a person: text on a terminal, log lines, how objects show themselves."""
