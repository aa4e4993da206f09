"""What goes over the wire: requests as values, answers parsed from bytes.

Pure: no socket, no loop, no wall clock. Where a parser needs the time, it is passed in.
"""
