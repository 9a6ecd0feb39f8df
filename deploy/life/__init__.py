"""A model that works in one hospital: accepted, fitted to the site, watched."""
