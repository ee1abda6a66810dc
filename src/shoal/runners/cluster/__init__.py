"""Workers on a Ray cluster. Only `connection` and `crew` touch Ray: a host runs anywhere."""
