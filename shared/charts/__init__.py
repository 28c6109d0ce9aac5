"""Charts: what they show, how they look, and pictures of them."""
