"""The real control, with servers that are only remembered: `python -m benchmarks.faults.control_worker`.

Service, loop, log, store, runner and registry are the product's own, by the settings of the environment. The traffic
goes nowhere, and the workers of a model are not started: neither has a part in a run. Killed, it keeps nothing.
"""

import threading

from tidemill.control.log import KafkaLog
from tidemill.control.protocols import StoredModel
from tidemill.control.provision import Provisioner, topics_of
from tidemill.control.service import Service
from tidemill.control.tick import Loop, Parts
from tidemill.events.cluster import ensure_topics
from tidemill.testing.supervisor import SupervisorDouble
from tidemill.testing.traffic import MemoryTrafficDriver
from tidemill.wiring import Local, local

__all__: list[str] = []


def loop_of(wiring: Local, stored: StoredModel) -> Loop:
    """The loop of a model, which starts a run only where it is asked to."""
    log = KafkaLog(wiring.settings.require_kafka(), topics_of(stored.resource))
    parts = Parts(
        log=log,
        runner=wiring.runner(stored),
        driver=MemoryTrafficDriver(ready_at_once=True),
        registry=wiring.registry,
        labelled=lambda since: 0,
        close=log.close,
    )
    return Loop(stored.resource.id, wiring.store, parts, wiring.clock)


def main() -> None:
    """Go round until killed."""
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
    main()
