"""Runs the event simulator on scenarios, and says what became of every request."""
