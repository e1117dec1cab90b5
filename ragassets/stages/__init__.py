"""One file per stage: reads its inputs, says what to compute, writes its table. No Dagster here."""
