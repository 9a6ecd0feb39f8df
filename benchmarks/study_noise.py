"""What does the size of a validation set alone do to the AUC? For reading the criterion `std < 0.02` of a study.

Logits of 42 HGG and 15 LGG are drawn from two normal distributions of a given true AUC. Two questions:
- how far the AUC of one network moves with the draw of the patients (the level of an AUC);
- how much a network may jitter from epoch to epoch, on the same patients, before the standard deviation of its AUC
  over five epochs reaches 0.02 (the criterion). Jitter is independent noise on each logit and epoch, in units of the
  spread of the patients' logits within a grade.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from benchmarks.common import arguments, report
from toolkit.evaluation.metrics import areas

HGG, LGG, EPOCHS, DRAWS = 42, 15, 5, 2000
JITTERS = (0.1, 0.2, 0.3, 0.4, 0.5)


def main() -> None:
    """Print a row for each true AUC and jitter."""
    given = arguments("What the size of a validation set alone does to the AUC.")
    rng = np.random.default_rng(0)
    rows = []
    for true in (0.80, 0.85, 0.90):
        gap = np.sqrt(2) * norm.ppf(true)
        lgg = rng.normal(0, 1, (DRAWS, 1, LGG))
        hgg = rng.normal(gap, 1, (DRAWS, 1, HGG))
        for jitter in JITTERS:
            noise = [rng.normal(0, jitter, (DRAWS, EPOCHS, size)) for size in (LGG, HGG)]
            spread = areas(lgg + noise[0], hgg + noise[1]).std(axis=1, ddof=1)  # (DRAWS,)
            rows.append((true, areas(lgg, hgg).std(), jitter, spread.mean(), (spread < 0.02).mean()))
    title = f"{HGG} HGG, {LGG} LGG; smallest step of an AUC {1 / (HGG * LGG):.4f}; {DRAWS} draws"
    columns = ("true AUC", "sd over patients", "jitter", "mean spread of 5 epochs", "share < 0.02")
    report(title, columns, [tuple(map(float, row)) for row in rows], given.out)


if __name__ == "__main__":
    main()
