"""The systems that the paper compares itself with, trained and scored on the same data by the same code."""
