"""Every fact is a record: the record types, where they come from (sources, offsets), and the log and lake they live in."""
