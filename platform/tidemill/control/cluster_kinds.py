"""The kinds of objects that the operator reads and writes."""

from tidemill.cluster import Kind

__all__ = [
    "CONFIG_MAP",
    "DEPLOYMENT",
    "KAFKA_TOPIC",
    "MODEL",
    "PROMETHEUS_RULE",
    "SCALED_OBJECT",
    "SERVICE",
    "SERVICE_MONITOR",
]

MODEL = Kind("tidemill.dev/v1alpha1", "ContinualModel", "continualmodels")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE = Kind("v1", "Service", "services")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
KAFKA_TOPIC = Kind("kafka.strimzi.io/v1beta2", "KafkaTopic", "kafkatopics")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")
SERVICE_MONITOR = Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors")
PROMETHEUS_RULE = Kind("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules")
