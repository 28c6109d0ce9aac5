"""What is promised to whoever calls or listens: routes and events, as documents made of the code."""
