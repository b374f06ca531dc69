"""Where stores keep their rows: a folder for each kind of database. Nothing optional is imported here."""
