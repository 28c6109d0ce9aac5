"""The kernel: what two services must agree on. It knows no service."""
