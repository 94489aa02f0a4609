"""What `meshctl demo` runs: an application of four services in processes of their own, a load, and a story told over it.

The applications in `bookinfo` and the load are ordinary users of meshlib: its public API and its integrations, nothing else.
"""
