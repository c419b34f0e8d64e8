"""The long-lived processes: web, engine, trainer and the supervisor that runs them together."""
