"""Every fact is a record: the record types, their sources and offsets, and the log and lake they live in."""
