"""Hostile and erratic peers: random walks over core and server, and what they found."""
