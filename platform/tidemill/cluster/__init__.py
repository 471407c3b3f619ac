"""A Kubernetes API server as the rest of Tidemill sees it: plain manifests in, plain manifests out."""

from tidemill.cluster.api import Access, Cluster, Foreign, Kind, Manifest

__all__ = ["Access", "Cluster", "Foreign", "Kind", "Manifest"]
