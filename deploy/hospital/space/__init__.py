"""From four series as the scanner wrote them to four skull-stripped images in BraTS space."""
