"""The loop: decide purely, tick by tick; and the seams through which its decisions take effect.

Read it in this order:

    state.py      what is known of one model: one JSON document
    decide.py     the decision as a sentence; its parts in triggers.py, grants.py, rollouts.py
    tick.py       one tick: read, observe, decide, write down, tell, act
    effects.py    what follows from the status: runs, aliases, traffic
    rebuild.py    a lost status, found again
    service.py    every model in turns; provision.py: what a model needs to run

Around it: log.py (requests, signals, outcomes, decisions), ask.py (ask control, and wait), protocols.py (the seams)
with store.py and local_runner.py for one machine, labelled.py and outcomes.py for what is counted and compared.
"""
