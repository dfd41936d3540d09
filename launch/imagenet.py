"""Train a student, by the recipe that is named. The same command line again goes on with the run.

python launch/imagenet.py RECIPE --data DIR --out RUN [flags]

torchrun --nproc_per_node=8 launch/imagenet.py kd_r34_r18 --data /data/imagenet --out runs/a

python launch/imagenet.py RECIPE --help
"""

from launch import recipes
from launch.program import Program
from pipeline.core.command import Outcome, run_command

PROGRAM = Program("launch/imagenet.py", recipes, __doc__)
all_recipes, parse_config = PROGRAM.recipes, PROGRAM.parse_config


def main() -> Outcome:
    """See `Program.main`; a function of a module, so that another process can be told to run it."""
    return PROGRAM.main()


if __name__ == "__main__":
    run_command(main)
