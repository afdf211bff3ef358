"""Agents that get better within their context, without emitting policies; see `methods.baseline`."""
