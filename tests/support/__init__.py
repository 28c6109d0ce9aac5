"""What several tests share: a broker, a Slack, events."""
