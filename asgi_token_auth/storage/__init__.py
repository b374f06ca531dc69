"""What every store is made of: tables that are opened, migrated and searched, and last uses."""
