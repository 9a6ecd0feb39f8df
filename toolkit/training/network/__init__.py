"""The network, its weights and its ensembles."""
