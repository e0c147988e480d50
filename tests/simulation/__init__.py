"""A deterministic simulation: the real client, and a world that follows from a seed."""
