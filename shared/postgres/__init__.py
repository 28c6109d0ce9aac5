"""PostgreSQL: connections and transactions, gathered writes, and who may do what."""
