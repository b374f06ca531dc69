"""Everything that knows Datasette."""
