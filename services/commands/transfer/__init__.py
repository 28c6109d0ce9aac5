"""Votes in and out: files of other systems imported, the ledger exported. No service: commands alone."""
