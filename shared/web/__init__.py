"""HTTP, in and out: what stands around every route, who may call it, and calls to other hosts."""
