"""From laws to the best F of a model that was not trained, and to YAMLs that test it."""
