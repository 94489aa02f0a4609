"""xDS v3 without I/O: protos in, model out; the client's side of the ADS protocol."""
