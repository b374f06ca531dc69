"""What every store is made of: tables that are opened and migrated, searched, and told of uses."""
