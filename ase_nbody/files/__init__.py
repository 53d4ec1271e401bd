"""Files: written whole, model files without code, committees in one file, HTML pages."""
