"""Against other implementations, real processes and real sockets: DCMTK and pynetdicom."""
