"""What every process of a training needs, loaded once and forked: each would take seconds to load it again."""

from toolkit.environment import loading

with loading():
    import torch._dynamo  # noqa: F401  # the optimisers load it

    import toolkit.training.single  # noqa: F401
