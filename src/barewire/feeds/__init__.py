"""Byte streams and datagrams in, messages out."""
