"""What every stage stands on: settings, errors, the clock, ids and telemetry. Imports nothing of ours."""
