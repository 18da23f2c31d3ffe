"""Benchmarks of scans, networks and trainings; only correct candidates are timed."""
