"""What is claimed, measured beside its peers in one run."""
