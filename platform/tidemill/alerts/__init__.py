"""Alerts to people: what the watch signals and control decides, told in few words through the resource's routes.

Records of `.signals` and `.decisions` go through `notify`, which is pure: it groups, deduplicates, repeats, mutes and
resolves, and says what each route has to be told now. A child process tells it, through Apprise; what a route has
taken is remembered on `.alerts`, after the route took it.

    plan        what a resource declares, as the core needs it
    state       what is known: alerts, and what ends them
    intake      a record's meaning: which alert it opens, and which it ends
    muting      the times at which nobody is told
    due         what each route has to be told now
    words       that in words
    notify      all of this as one pure function
    notifier    the seam to the services; apprise_process and apprise_child are Apprise behind it
    delivery    each route's attempts, and its back-off
    memory      `.alerts`: what was told
    worker      the process: reads, notifies, sends, remembers
"""
