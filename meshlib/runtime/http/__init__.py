"""HTTP/1.1 connection pools, one per endpoint: `aio` and `blocking` shells over the sans-io `meshlib.wire`."""
