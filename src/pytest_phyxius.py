"""The pytest plugin of phyxius-migration."""
