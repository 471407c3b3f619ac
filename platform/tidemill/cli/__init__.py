"""The commands of tidemill."""
