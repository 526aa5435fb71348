"""Classifiers kept in memory and asked again and again.

adapter_set   several adapters on one base, switched between
refusal served engine loading   the engine without HTTP: models, a table of them, one batcher
listening keys   a server from its settings
load_test   how many answers a second, and how long they take

May import: core, data, stats, models, exporting.
"""
