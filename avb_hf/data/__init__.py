"""Clips and labels: reading, checking, decoding and batching."""
