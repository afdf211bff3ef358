"""Learned policy improvement operators: (θⁿ, experience, ask) -> θⁿ⁺ᵏ."""
