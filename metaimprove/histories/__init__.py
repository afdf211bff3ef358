"""Improvement histories: θ⁰...θᴺ with the experience each collected, stored and read back as training tuples."""
