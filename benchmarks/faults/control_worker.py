"""The real control, with servers that are only remembered: `python -m benchmarks.faults.control_worker`.

Service, loop, log, store, runner and registry are the product's own, by the settings of the environment. The traffic
goes nowhere, and the workers of a model are not started: neither has a part in a run. Killed, it keeps nothing.
"""

import threading
from collections.abc import Callable

from tidemill.control.log import KafkaLog
from tidemill.control.protocols import PipelineRunner, StoredModel
from tidemill.control.provision import Provisioner, topics_of
from tidemill.control.service import Service
from tidemill.control.tick import Loop, Parts
from tidemill.events.cluster import ensure_topics
from tidemill.registry import Registry
from tidemill.rollout.driver import TrafficDriver
from tidemill.testing.supervisor import SupervisorDouble
from tidemill.testing.traffic import MemoryTrafficDriver
from tidemill.wiring import Local, local

__all__ = ["go_round"]


def go_round(
    *,
    runner: Callable[[Local, StoredModel], PipelineRunner],
    driver: Callable[[Local, StoredModel], TrafficDriver],
    registry: Callable[[Local], Registry],
) -> None:
    """Run control with these parts of each model, which starts a run only where it is asked to, until killed."""
    wiring = local()
    kafka, made = wiring.settings.require_kafka(), registry(wiring)

    def loop(stored: StoredModel) -> Loop:
        log = KafkaLog(kafka, topics_of(stored.resource))
        parts = Parts(
            log=log,
            runner=runner(wiring, stored),
            driver=driver(wiring, stored),
            registry=made,
            labelled=lambda since: 0,
            close=log.close,
        )
        return Loop(stored.resource.id, wiring.store, parts, wiring.clock)

    provisioner = Provisioner(
        SupervisorDouble(),
        ensure_topics=lambda topics, retention_ms: ensure_topics(kafka, topics, retention_ms=retention_ms),
        file=wiring.resource_file,
    )
    service = Service(wiring.store, ids=wiring.store.ids, provisioner=provisioner, loop=loop, clock=wiring.clock)
    service.run(threading.Event())


if __name__ == "__main__":
    go_round(
        runner=lambda wiring, stored: wiring.runner(stored),
        driver=lambda wiring, stored: MemoryTrafficDriver(ready_at_once=True),
        registry=lambda wiring: wiring.registry,
    )
