"""The four places where a token is checked, one module each."""
