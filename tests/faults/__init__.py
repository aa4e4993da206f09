"""What goes wrong in the field, one test or family for each fault by its id; the servers' own counters say what happened."""
