"""The processes of one machine: started on free loopback ports, watched, and ended together."""
