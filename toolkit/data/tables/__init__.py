"""Tables of grades: read whole or refused, their columns recognised, their rows matched with patients."""
