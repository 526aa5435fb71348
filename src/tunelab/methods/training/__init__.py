"""How weights learn. Read `teaching` first: 150 lines with the losses of the rest.

stack         drives trainings, one or several in one pass
checkpoint    a training in progress, on disk
"""
