"""Operators in other code: plain numpy, and environments and agents of other libraries, each in a file of its own."""
