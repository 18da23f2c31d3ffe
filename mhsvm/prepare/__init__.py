"""Preparation of data sets from archives and folders."""
