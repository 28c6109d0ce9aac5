"""What becomes of an event: dealt with once, however often it is delivered, and what follows from it sent."""
