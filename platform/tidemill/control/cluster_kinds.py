"""The kinds of objects that the operator reads and writes."""

from tidemill.cluster import Kind

__all__ = [
    "CONFIG_MAP",
    "DEPLOYMENT",
    "KAFKA_TOPIC",
    "MODEL",
    "POD_MONITOR",
    "SCALED_OBJECT",
]

MODEL = Kind("tidemill.dev/v1alpha1", "ContinualModel", "continualmodels")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
KAFKA_TOPIC = Kind("kafka.strimzi.io/v1beta2", "KafkaTopic", "kafkatopics")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")
POD_MONITOR = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors")
