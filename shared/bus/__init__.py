"""How events travel: the port, the envelope, and two adapters: RabbitMQ, and within one process."""
