"""Devices and processes: the mesh, where arrays lie on it, joining and leaving a cluster."""
