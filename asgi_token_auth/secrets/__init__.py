"""Encrypted secrets: what one is, how its value is encrypted, and the store that sets, shows and hands out."""
