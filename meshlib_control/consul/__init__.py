"""Consul's HTTP API, as much of it as the store and the catalog need.  The only package that knows py-consul."""
