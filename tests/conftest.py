"""How many examples the property tests try: `pytest --hypothesis-profile=thorough` for many."""

from hypothesis import HealthCheck, settings

settings.register_profile("default", max_examples=200, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5000)
settings.load_profile("default")
