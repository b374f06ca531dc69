"""Managed tokens: what one is, how its text is read, and the store that issues, lists, changes and ends them."""
