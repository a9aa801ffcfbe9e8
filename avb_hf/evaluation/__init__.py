"""Scores, prediction files and contest files of a finished evaluation."""
