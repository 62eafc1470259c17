"""Documents in, a published index out: readers, the `Store` protocol and its engines, builds, evaluation."""
