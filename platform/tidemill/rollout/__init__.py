"""How traffic moves to a candidate: the state machine, its verdicts, and the drivers that move the traffic."""
