"""Tells the team: reports and outcomes, in Slack or on the terminal."""
