"""What kisl-fit prints and writes."""
