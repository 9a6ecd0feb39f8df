"""The model folder: made by export, used by prediction."""
