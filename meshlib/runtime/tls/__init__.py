"""TLS of the mesh: who is at the other end of a connection, proved inside the handshake."""
