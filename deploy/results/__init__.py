"""What is known of a patient after a prediction, and the folder that keeps it."""
