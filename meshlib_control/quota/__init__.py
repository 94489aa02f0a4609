"""Limits that hold for all processes together: shares by demand, leases, and counts of days and months (RLQS)."""
