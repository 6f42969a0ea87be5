"""What `tools/bench` is made of: measurements of this library beside a conventional implementation, in one process."""
