"""Tars and folders as sets of files: headers, records by key, copies of compressed tars."""
