"""The measurements of `tools/bench`: this library beside a conventional implementation, in one process."""
