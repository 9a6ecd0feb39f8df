"""Pages and evidence maps of graded patients."""
