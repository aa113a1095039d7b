"""`RemoteAE`: whole jobs with a peer, over real sockets; it fails in the ways that peers do."""
