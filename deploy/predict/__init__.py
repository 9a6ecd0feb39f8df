"""From patient folders to graded records on one machine."""
