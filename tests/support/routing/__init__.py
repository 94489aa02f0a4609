"""Generated configurations and requests, and what a real Envoy and a real meshlib client make of them."""
