"""The page people look at: see the loop, judge it, teach it.

    queries/    what is shown: pure functions and dataclasses, over the same queries as the command line
    desk.py     what people change: requests to control, labels, and taking them back
    viewers.py  who may do what, and guard.py that holds it for every request and socket
    pages/      how it looks: one module a page, NiceGUI alone
    server.py   all of it together

Nothing here is kept but the record of what people did: what a page shows is read where the loop keeps it.
"""

__all__: list[str] = []
