"""Storms over real sockets: many requests, faults and cancellations, and the truth beside them."""
