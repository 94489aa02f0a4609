"""Who this process is: its certificate, its key, and where they come from."""
