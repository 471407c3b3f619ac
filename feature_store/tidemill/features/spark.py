"""The way to Spark, for lakes that one machine no longer reads: the same tables, the same query, Feast's Spark store.

    session()                                a SparkSession that reads Delta tables, every clock of it in UTC
    spark_store(resource, settings)          a feast.FeatureStore whose history Spark computes

Its `get_historical_features(…, filter_by_created_timestamp=True)` gives the rows that Tidemill's own point-in-time join
gives. Windows are not among the features: only `tidemill.features.tiles` computes them, so that training and serving
agree. It has a Feast project of its own, so nothing of the model's is changed. Needs the extra `spark` and Delta's
jars (`delta_jars`); imports pyspark and Feast inside its functions.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tidemill.core.errors import InvalidInput, NotFound, Unavailable
from tidemill.core.settings import Settings
from tidemill.features.project import project_name, store_config
from tidemill.spec.model import ContinualModel

__all__ = ["COORDINATES", "JARS", "delta_jars", "session", "spark_conf", "spark_definitions", "spark_store"]

COORDINATES = "io.delta:delta-spark_4.2_2.13:4.4.0"
"""Delta for pyspark 4.2; there is none for 4.3, which hangs."""
JARS = ("delta-spark_4.2_2.13", "delta-storage", "delta-kernel-api", "delta-kernel-defaults")
"""What of it is needed: Spark has the rest."""


def delta_jars() -> tuple[Path, ...]:
    """Delta's four jars, fetched from Maven Central the first time and kept in jgo's cache. Raises `Unavailable`."""
    command = [sys.executable, "-m", "jgo", "--ignore-config", "--resolver", "python", "info", "jars", COORDINATES]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    known = {Path(line.strip()) for line in run.stdout.splitlines() if line.strip().endswith(".jar")}
    found = tuple(sorted(path for path in known if path.name.rpartition("-")[0] in JARS))
    if len(found) != len(JARS):
        last = (run.stderr.strip().splitlines() or ["no output"])[-1]
        raise Unavailable(
            f"Delta's jars could not be fetched from Maven Central: {last[:300]}",
            hint=f"check the network, or give {', '.join(JARS)} of {COORDINATES} yourself",
        )
    return found


def spark_conf(jars: Sequence[Path] = ()) -> dict[str, str]:
    """Spark's settings, as feature_store.yaml takes them under `spark_conf`, too.

    Args:
        jars: Delta's; none where the cluster has them.
    """
    conf = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.executor.extraJavaOptions": "-Duser.timezone=UTC",
        # Fifty partitions to read a log of a few hundred lines cost seconds.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    return conf | ({"spark.jars": ",".join(str(jar) for jar in jars)} if jars else {})


def session(jars: Sequence[Path] | None = None, *, master: str = "local[*]", conf: dict[str, str] | None = None) -> Any:
    """The `SparkSession`; Feast's Spark store takes the one that is active.

    Args:
        jars: Delta's; None: `delta_jars`.
        master: where it runs; `local[…]` listens on loopback alone.
        conf: settings of your own, after ours.

    Raises:
        InvalidInput: this process is not in UTC. Feast cuts history by times that it takes for local ones: a value
            here and there would be missing, without an error.
        NotFound: there is no pyspark.
        Unavailable: the jars cannot be fetched.
    """
    if time.tzname != ("UTC", "UTC"):
        raise InvalidInput(
            f"Feast's Spark store loses values in a process whose time zone is {time.tzname[0]}",
            hint="start it with the environment variable TZ=UTC",
        )
    if find_spec("pyspark") is None:
        raise NotFound("there is no pyspark", hint="pip install 'tidemill[spark]'")
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(master).appName("tidemill")
    wanted = spark_conf(delta_jars() if jars is None else jars)
    if master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        wanted |= {
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.ui.enabled": "false",
        }
    for name, value in (wanted | (conf or {})).items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def spark_definitions(resource: ContinualModel, lake: str) -> list[Any]:
    """The model's entity, view `events` and service over Spark sources: `[Entity, FeatureView, FeatureService]`."""
    from feast import FeatureService, FeatureView
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
    from feast.table_format import DeltaFormat

    from tidemill.features.definitions import VIEW, definitions

    found = definitions(resource, lake)
    known = next(one for one in found if isinstance(one, FeatureView) and one.name == VIEW)
    entity = next(one for one in found if one.name in known.entities)
    columns = {field.name for field in resource.spec.events.fields} | {*resource.spec.features.image, *known.entities}
    file: Any = known.batch_source
    source = SparkSource(
        name=f"{file.name}_on_spark",
        path=file.path,
        table_format=DeltaFormat(),  # file_format="delta" is refused
        timestamp_field=file.timestamp_field,
        created_timestamp_column=file.created_timestamp_column,
        field_mapping=file.field_mapping,
        tags=known.tags,
    )
    view = FeatureView(
        name=known.name,
        entities=[entity],
        schema=[field for field in known.schema if field.name in columns],
        source=source,
        ttl=known.ttl,
        online=False,
        tags=known.tags,
    )
    return [entity, view, FeatureService(name=project_name(resource.id), features=[view], tags=known.tags)]


def spark_store(resource: ContinualModel, settings: Settings) -> Any:
    """A `feast.FeatureStore` of a project of its own, with the model's definitions over Spark, applied."""
    from feast import FeatureStore, RepoConfig

    config = store_config(resource.id, settings) | {
        "project": f"{project_name(resource.id)}_ON_SPARK",
        "offline_store": {"type": "spark", "spark_conf": spark_conf()},
    }
    settings.state.mkdir(parents=True, exist_ok=True)
    store = FeatureStore(config=RepoConfig(repo_path=Path.cwd(), **config))
    store.apply(spark_definitions(resource, settings.lake_uri), partial=True)
    return store
