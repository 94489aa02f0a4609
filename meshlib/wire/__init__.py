"""HTTP/1.1 without I/O: request heads as bytes, responses as events, one connection as a state machine."""
