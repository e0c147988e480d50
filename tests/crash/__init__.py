"""Crashes: durable payments whose workers are killed, again and again, beside a ledger that knows."""
