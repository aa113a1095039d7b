"""The version, and how the implementation names itself to peers (PS3.7 §D.3.3.2)."""

__version__ = "0.1.0"

IMPLEMENTATION_CLASS_UID = "2.25.117808847384673365590559283700377226482"
"""From a random UUID, as anyone may make them (PS3.5 §B.2)."""
IMPLEMENTATION_VERSION_NAME = f"DIMSETRIO_{__version__}"[:16]
