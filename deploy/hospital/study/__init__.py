"""From a scanner's files to the four series of a study, and from a series to a volume."""
