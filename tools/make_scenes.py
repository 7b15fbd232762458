"""Write the generated "Scenes" data set: OUT/{images,labels}/{train,val}/NNNN.png."""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmseg_encstdc.datasets import scene_painter  # noqa: E402

RECORD = "scenes.json"  # says which set a folder holds
SPLITS = ("train", "val")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors take one line: what is wrong and what to do."""

    def error(self, message):
        """Print the message and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def parse_args(argv=None):
    """Return the parsed arguments; exits with a one-line error on bad ones."""
    parser = _Parser(
        prog="make_scenes",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--train", type=int, default=320, help="scenes to train on")
    parser.add_argument("--val", type=int, default=80, help="scenes to validate on")
    parser.add_argument("--seed", type=int, default=0, help="number of the data set")
    parser.add_argument("--workers", type=int, default=2, help="number of threads")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace another set in OUT"
    )
    args = parser.parse_args(argv)
    for name, least in (("train", 1), ("val", 1), ("seed", 0), ("workers", 1)):
        value = getattr(args, name)
        if value < least:
            parser.error(f"--{name} is {value}; give a number from {least} up")
    args.parser = parser
    return args


def read_record(out):
    """Return the record of the set that a folder holds, or None if it is free.

    Args:
        out (Path): The folder, which need not exist.

    Raises:
        ValueError: The folder holds something that this tool must not replace.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder as OUT")
    path = out / RECORD
    if path.is_file():
        try:
            record = json.loads(path.read_text())
            return {key: int(record[key]) for key in describe(0, 0, 0)}
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path} is damaged; delete {out} and retry") from None
    for part in ("images", "labels"):
        if (out / part).exists():
            raise ValueError(
                f"{out / part} was not made by this tool; give another folder as OUT"
            )
    return None


def describe(train, val, seed, complete=0):
    """Return the record of a set. ``complete`` is 0 until every file is written."""
    return {
        "generator": scene_painter.VERSION,
        "seed": seed,
        "train": train,
        "val": val,
        "complete": complete,
    }


def list_files(out, record):
    """Return the paths of all images and labels of a set."""
    return [
        out / part / split / f"{number:04d}.png"
        for part in ("images", "labels")
        for split in SPLITS
        for number in range(record[split])
    ]


def write_record(out, record):
    """Write the record of a set into its folder."""
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def prepare(out, new, overwrite):
    """Make the folder ready for a set; return whether it already holds that set.

    Raises:
        ValueError: The folder holds something else and may not be overwritten.
        OSError: The folder cannot be written.
    """
    old = read_record(out)
    if old is not None:
        if {**old, "complete": 0} != new and not overwrite:
            held = ", ".join(f"{key} {old[key]}" for key in new if key != "complete")
            raise ValueError(
                f"{out} holds another set ({held}); add --overwrite to replace it"
            )
        if old == {**new, "complete": 1} and all(
            path.is_file() for path in list_files(out, new)
        ):
            return True
        for path in list_files(out, old):
            path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    write_record(out, new)  # an interrupted run leaves a set that says so
    return False


def make_scenes(out, new, workers):
    """Write all files of a set and complete its record."""
    for split in SPLITS:
        scene_painter.write_split(out, split, new[split], new["seed"], workers)
    write_record(out, {**new, "complete": 1})


def main(argv=None):
    """Write the data set and print one line about it."""
    args = parse_args(argv)
    new = describe(args.train, args.val, args.seed)
    start = time.perf_counter()
    try:
        done = prepare(args.out, new, args.overwrite)
        if not done:
            make_scenes(args.out, new, args.workers)
    except (ValueError, OSError) as error:
        args.parser.error(str(error))
    state = "already there" if done else f"{time.perf_counter() - start:.1f} s"
    print(
        f"{args.out}: {args.train} train + {args.val} val scenes, "
        f"{len(scene_painter.CLASSES)} classes, seed {args.seed} ({state})"
    )


if __name__ == "__main__":
    main()
