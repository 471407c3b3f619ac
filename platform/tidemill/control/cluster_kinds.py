"""The kinds of objects that the operator reads and writes."""

from tidemill.cluster import Kind
from tidemill.rollout.kserve import CONFIG_MAP, REVISION

__all__ = [
    "CONFIG_MAP",
    "DEPLOYMENT",
    "JOB",
    "KAFKA_TOPIC",
    "MODEL",
    "REVISION",
    "SCALED_OBJECT",
]

MODEL = Kind("tidemill.dev/v1alpha1", "ContinualModel", "continualmodels")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
JOB = Kind("batch/v1", "Job", "jobs")
KAFKA_TOPIC = Kind("kafka.strimzi.io/v1beta2", "KafkaTopic", "kafkatopics")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")
