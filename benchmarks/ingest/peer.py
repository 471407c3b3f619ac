"""Feast's way from the same topic to its Redis store, in a process of its own: `python -m benchmarks.ingest.peer`.

At its best: the topic is read without a group in batches of 10,000, each decoded with msgspec in one go into a frame
and handed to `write_to_online_store` once; the store skips its look at older timestamps (`skip_dedup`), which costs it
a round trip, and late events their order. Nothing is validated, nothing goes to a lake, and nothing is fenced.
"""

import resource
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

import msgspec
from benchmarks.ingest.stack import feast_address

__all__ = ["BATCH", "Measured", "Task"]

BATCH = 10_000


class Task(msgspec.Struct):
    """What to write."""

    kafka: str
    redis: str
    topic: str
    folder: str
    entity: str
    id: str
    timestamp: str
    features: list[str]
    events: int


class Measured(msgspec.Struct):
    """How long it took from the first poll to the last write."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    events: int


def main(task: Task) -> Measured:
    """Write the topic's events to Feast's Redis store."""
    warnings.simplefilter("ignore")
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, String
    from kafka import KafkaConsumer, TopicPartition

    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=True)
    store = FeatureStore(
        config=RepoConfig(
            project="peer",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "redis", "connection_string": feast_address(task.redis), "skip_dedup": True},
            entity_key_serialization_version=3,
        )
    )
    entity = Entity(name=task.entity, join_keys=[task.entity], value_type=ValueType.STRING)
    source = FileSource(name="none", path=str(folder / "none.parquet"), timestamp_field=task.timestamp)
    schema = [Field(name=task.entity, dtype=String), *(Field(name=name, dtype=Float64) for name in task.features)]
    store.apply([entity, FeatureView(name="peer", entities=[entity], schema=schema, source=source, ttl=timedelta(0))])
    consumer = KafkaConsumer(
        bootstrap_servers=task.kafka.split(","), enable_auto_commit=False, max_partition_fetch_bytes=8 << 20
    )
    partitions = [TopicPartition(task.topic, number) for number in consumer.partitions_for_topic(task.topic) or ()]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    decode = msgspec.json.Decoder(list[dict[str, float | str]]).decode
    wall, cpu, written = time.perf_counter(), time.process_time(), 0
    values: list[bytes] = []
    while written < task.events:
        for records in consumer.poll(timeout_ms=500, max_records=BATCH - len(values)).values():
            values += [record.value for record in records]
        if len(values) < BATCH and written + len(values) < task.events:
            continue
        frame = pd.DataFrame(decode(b"[" + b",".join(values) + b"]")).drop(columns=[task.id])
        frame[task.timestamp] = pd.to_datetime(frame[task.timestamp], unit="ms", utc=True)
        store.write_to_online_store("peer", frame)
        written, values = written + len(values), []
    found = time.perf_counter() - wall, time.process_time() - cpu
    consumer.close()
    return Measured(*found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, written)


if __name__ == "__main__":
    print(msgspec.json.encode(main(msgspec.json.decode(sys.argv[1], type=Task))).decode())
