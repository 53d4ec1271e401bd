"""The files that the package writes and reads: models without code, committees in one file, and HTML pages."""
