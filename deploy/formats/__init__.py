"""A model in the form that other tools want: MONAI bundle, Triton repository."""
