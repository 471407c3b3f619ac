"""ContinualModel: the one resource. Validates the YAML a person writes; the CRD is generated from it."""
