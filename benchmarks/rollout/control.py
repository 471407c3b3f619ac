"""The real control with the real traffic driver: `python -m benchmarks.rollout.control READY_WITHIN_S`.

A candidate is waited for as long as is said, not five minutes. Runs and registry have no part in a rollout, and the
workers of the model are not started. Killed, it keeps nothing.
"""

import sys
import threading

from tidemill.control.log import KafkaLog
from tidemill.control.protocols import StoredModel
from tidemill.control.provision import Provisioner, topics_of
from tidemill.control.service import Service
from tidemill.control.tick import Loop, Parts
from tidemill.events.cluster import ensure_topics
from tidemill.registry import Alias
from tidemill.rollout import machine
from tidemill.testing.registry import MemoryRegistry
from tidemill.testing.runner import ScriptedRunner
from tidemill.testing.supervisor import SupervisorDouble
from tidemill.wiring import Local, local

__all__: list[str] = []


class Unregistered(MemoryRegistry):
    """Knows no version, and takes any alias."""

    def set_alias(self, model: str, alias: Alias, version: str | None) -> None:
        """Forget it."""


def loop_of(wiring: Local, stored: StoredModel) -> Loop:
    """The loop of a model, which starts no run by itself."""
    log = KafkaLog(wiring.settings.require_kafka(), topics_of(stored.resource))
    parts = Parts(
        log=log,
        runner=ScriptedRunner(),
        driver=wiring.driver(stored),
        registry=Unregistered(wiring.clock),
        labelled=lambda since: 0,
        close=log.close,
    )
    return Loop(stored.resource.id, wiring.store, parts, wiring.clock)


def main(ready_within_s: str) -> None:
    """Go round until killed."""
    machine.READY_WITHIN_MS = int(ready_within_s) * 1000
    wiring = local()
    kafka = wiring.settings.require_kafka()
    provisioner = Provisioner(
        SupervisorDouble(),
        ensure_topics=lambda topics, retention_ms: ensure_topics(kafka, topics, retention_ms=retention_ms),
        file=wiring.resource_file,
    )
    service = Service(
        wiring.store,
        ids=wiring.store.ids,
        provisioner=provisioner,
        loop=lambda stored: loop_of(wiring, stored),
        clock=wiring.clock,
    )
    service.run(threading.Event())


if __name__ == "__main__":
    main(sys.argv[1])
