"""How fast, how large, how much at once: against DCMTK, pynetdicom and what the machine can do."""
