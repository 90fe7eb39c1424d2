"""Studies so small that a run takes seconds; also a script that runs one and can be killed.

python tests/studies/tiny.py DATA OUT [PROGRAM]    PROGRAM is called in place of `regionnorm`
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from regionnorm.studies import Scale, find_photos, runner
from regionnorm.studies.plan import make_run, mini_scale
from regionnorm.training import Recipe

STEPS = 16


def tiny_scale() -> Scale:
    """One seed, width 4, 32 px, a few steps."""
    mini = mini_scale()

    def adapt(recipe: Recipe) -> Recipe:
        recipe = mini.adapt(recipe)
        return replace(
            recipe,
            options={**recipe.options, "width": 4},
            size=48,
            batch=1,
            steps=STEPS,
            val_every=STEPS // 2,
            val_photos=1,
            val_size=48,
            log_every=1,
            save_every=1,
            sample_every=STEPS,
            precision="32-true",
        )

    return replace(mini, seeds=(0,), more_seeds=(0,), adapt=adapt, size=48, limit=2)


if __name__ == "__main__":
    photos, out = map(Path, sys.argv[1:3])
    if len(sys.argv) > 3:
        runner.PROGRAM = (sys.executable, sys.argv[3])
    data = find_photos([photos], out / "lists")
    runner.Runner(out, tiny_scale(), data).run_all([make_run(tiny_scale(), "rn", 0)])
