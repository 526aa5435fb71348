"""Classifiers kept in memory and asked again and again.

adapter_set   several adapters on one base, switched between

May import: core, data, stats, models, exporting.
"""
