"""How a record's value spells its event: JSON in Spark; Avro and Protobuf, by a schema registry, in Python tasks."""
