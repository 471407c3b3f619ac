"""A Kubernetes API server as the rest of Tidemill sees it: plain manifests in, plain manifests out."""

from tidemill.cluster.api import Cluster, Foreign, Kind, Manifest

__all__ = ["Cluster", "Foreign", "Kind", "Manifest"]
