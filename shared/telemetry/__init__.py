"""What is seen of a process at work: logs, metrics and traces."""
