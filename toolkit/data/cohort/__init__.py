"""Who is in a cohort: grades, sites, duplicates, splits."""
