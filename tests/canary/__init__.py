"""Marked secrets: after a run of the suite with them, nothing that was written may hold one."""
