"""What makes the documentation's site: its hooks, its reference, its diagrams."""
