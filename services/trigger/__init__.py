"""Trigger: a scheduler's HTTP hit becomes a durable run and a published `feedback.evaluate`."""
