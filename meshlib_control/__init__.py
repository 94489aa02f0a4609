"""The control service: Istio YAML and a catalog of services in, xDS out."""
