"""Decisions in, signed transactions and their outcomes out."""
