"""Databases: where stores keep their rows. One module each; nothing optional is imported here."""
