"""Pure decisions, one mechanism a file: ``(state, event, now, rng) -> decision``."""
