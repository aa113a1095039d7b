"""DIMSE and its upper layer as pure values and state: no trio, no socket, no clock, no pydicom.

`UpperLayer` is PS3.8, `DimseConnection` PS3.7 on top of it. Both are driven by whoever has a
connection: bytes in, events out, bytes to send.
"""
