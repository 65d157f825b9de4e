"""Settings: the schema, composition, the typed specification of a run, errors explained."""
