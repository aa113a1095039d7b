"""What runs in processes of its own: the two sides that are written in Python, and a slow proxy."""
