"""Pure functions and frozen values: no Dagster, no SDK, no clock, no environment."""
