"""`auxlight fit|validate|test|predict|label --config METHOD.yaml [--config OVERLAY.yaml …] [--KEY VALUE …]`."""

import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Self, cast

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from auxlight.checkpoints import KEYWORDS, BestCheckpoint, LastCheckpoint, check_file, check_model, steps_of
from auxlight.datamodules import ImageDataModule
from auxlight.distributed import leave_devices
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.hparams import HyperparameterTab
from auxlight.inspection import Inspection
from auxlight.modules import AuxiliaryClassifier
from auxlight.parser_errors import one_line, parser_cause
from auxlight.prediction import PredictionWriter
from auxlight.progress import PhaseProgressBar
from auxlight.resuming import go_on_in_place, keep_metrics
from auxlight.run_config import FitConfig, with_run_config, without_logger
from auxlight.trainer import AuxlightTrainer

# Commands that train nothing themselves, and their packages.
OWN_COMMANDS = {"compare": "comparison", "budget": "budget"}
OWN_HELP = (
    "Two more commands have options of their own: `auxlight compare` (methods, controls and seeds, one table) and "
    "`auxlight budget` (which labels to buy), each with `--help`."
)


class AuxlightCLI(LightningCLI):
    """LightningCLI with auxlight's links and defaults; after a fit it tests the checkpoint that validated best."""

    _metrics: Path | None = None  # where a resumed run's CSV logger writes
    _best: BestCheckpoint | None = None  # of a fit: what it tests in the end, whatever else the user keeps

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: a module's factories of optimizers hold it, and copies of a module (weight averaging) share it."""
        return self

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, and `label`."""
        return {**LightningCLI.subcommands(), "label": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The data's hierarchy reaches the model; TensorBoard, checkpoints and bars are on by default."""
        self._subparser = getattr(self, "_subparser", parser)  # of the first subcommand; all take its options
        parser.link_arguments(
            "data.hierarchy", "model.init_args.hierarchy", compute_fn=_block_sizes, apply_on="instantiate"
        )
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_lightning_class_args(Inspection, "inspection")
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=True,
            help="Test the checkpoint that validated best once the fit is over; false while settings are chosen.",
        )
        parser.set_defaults(
            {
                "trainer.logger": {
                    "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
                    "init_args": {"save_dir": "logs", "name": "auxlight", "default_hp_metric": False},
                },
            }
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """A checkpoint brings its run's config, where none is given.

        What was asked for is kept: Lightning then lays the checkpoint's own arguments over it.
        """
        with one_line(self._subparser):
            if args is None or isinstance(args, list):
                words = sys.argv[1:] if args is None else args
                self.config = parser.parse_args(without_logger(with_run_config(words)))
            else:
                super().parse_arguments(parser, args)
        self._asked_for = self.config[self.config.subcommand].model.clone()
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path:
            check_file(path)

    def before_instantiate_classes(self) -> None:
        """Checkpoints, and the bar that names its phases, where wanted; a resumed run goes on in its own folder."""
        config = self.config[self.subcommand]
        trainer = config.trainer
        path = config.get("ckpt_path")
        if path:
            check_model(path, self._asked_for, config.model)
        elif self.subcommand in ("validate", "test", "predict"):
            raise InputError("`ckpt_path` must be the checkpoint of a run: untrained networks say nothing. Found none.")
        if self.subcommand == "fit" and trainer.enable_checkpointing is not False:
            self._best = BestCheckpoint()
            self.trainer_defaults["callbacks"] += [self._best, LastCheckpoint()]
        callbacks = trainer.callbacks or []
        chosen = [str(c.class_path) for c in (callbacks if isinstance(callbacks, list) else [callbacks])]
        if trainer.enable_progress_bar is not False and not any(path.endswith("ProgressBar") for path in chosen):
            self.trainer_defaults["callbacks"].append(PhaseProgressBar())
        if any(name.endswith("Inspection") for name in chosen):  # the user's own, instead of the default one
            config.inspection.every_n_epochs = 0
        if isinstance(self.save_config_callback, type) and issubclass(self.save_config_callback, FitConfig):
            self.save_config_kwargs["given"] = config.clone()
        if self.subcommand == "fit" and path and path not in KEYWORDS:
            self._metrics = go_on_in_place(path, trainer)

    def before_fit(self) -> None:
        """Remember where the run stands: it may write over its checkpoint."""
        path = self.config[self.subcommand].ckpt_path
        self._steps_before = steps_of(path) if path and Path(path).is_file() else None
        if self._metrics is not None and self.trainer.is_global_zero and not getattr(self.trainer, "fast_dev_run", 0):
            keep_metrics(self._metrics)

    def after_fit(self) -> None:
        """Read the test set once, and say where everything lies."""
        checkpoint = self._best if self._best in self.trainer.checkpoint_callbacks else None  # not in a fast_dev_run
        best = checkpoint.best_model_path if checkpoint else ""
        tests = self.config[self.subcommand].test_after_fit
        if self._steps_before == self.trainer.global_step and self.trainer.is_global_zero:
            print("Nothing was left to train: the run was over. --trainer.max_epochs makes it longer.")
        diverged = cast(AuxlightTrainer, self.trainer).diverged
        if diverged is not None and not best:
            raise diverged  # there is nothing to test
        if tests:
            self.trainer.test(self.model, self.datamodule, ckpt_path=best or None)
        logs = self.trainer.log_dir  # asks all devices
        if self.trainer.is_global_zero and checkpoint:
            tested = f"{best} (best {checkpoint.monitor})" if best else "the network after the last epoch"
            if tests:
                print(f"Tested:      {tested}")
            print(f"Checkpoints: {checkpoint.dirpath}")
            if any(isinstance(logger, TensorBoardLogger) for logger in self.trainer.loggers):
                print(f"TensorBoard: tensorboard --logdir {logs}")
        if diverged is not None:
            raise diverged


def _block_sizes(hierarchy: LabelHierarchy) -> list[int]:
    """The hierarchy as plain values, for the checkpoint."""
    return list(hierarchy.psi)


def main(args: ArgsType = None) -> None:
    """Run the command line; a user's mistake ends it with one line and exit code 2."""
    _silence_expected_warnings()
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as for `python -m`: class paths reach the user's own files
    try:
        words = sys.argv[1:] if args is None else args
        if isinstance(words, list):
            check_command(words)
            if words[0] in OWN_COMMANDS:
                # Only now: their libraries are slow to import.
                importlib.import_module(f"auxlight.{OWN_COMMANDS[words[0]]}.cli").main(words[1:])
                return
        AuxlightCLI(
            AuxiliaryClassifier,
            ImageDataModule,
            trainer_class=AuxlightTrainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=FitConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": [HyperparameterTab()]},
            parser_kwargs={"exit_on_error": False, "description": "Auxiliary learning.", "epilog": OWN_HELP},
            args=args,
        )
    except (InputError, MisconfigurationException) as error:
        _fail(" ".join(str(error).split()))
    except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename} cannot be written or read: {error.strerror}")
    except ArgumentError as error:
        _fail(parser_cause(str(error)))
    except (RuntimeError, ValueError) as error:
        text = str(error)
        if text.startswith("Error(s) in loading state_dict"):  # torch's, on a checkpoint of another shape
            _fail(f"`ckpt_path` must fit model and data. Found: {' '.join(text.split())[:300]}")
        if text.startswith("Does not validate"):  # jsonargparse's, on every type that it tried
            _fail(parser_cause(text))
        if not _is_lightnings(error):
            raise
        _fail(" ".join(text.split()))
    finally:
        leave_devices()


def check_command(words: Sequence[str]) -> None:
    """Refuse a command that there is not.

    Raises:
        InputError: the first word is neither a command nor an option, or there is none.
    """
    commands = [*AuxlightCLI.subcommands(), *OWN_COMMANDS]
    if not words or not (words[0].startswith("-") or words[0] in commands):
        found = f"'{words[0]}'" if words else "none"
        raise InputError(f"`auxlight` must be followed by a command: {', '.join(commands)}. Found {found}.")


def _is_lightnings(error: Exception) -> bool:
    """Whether Lightning itself refuses something, rather than what it calls."""
    if type(error) not in (RuntimeError, ValueError):  # classes of torch's: memory, asserts on the device
        return False
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")).startswith(("lightning.", "lightning_utilities."))


def _fail(message: str) -> NoReturn:
    print(f"auxlight: error: {message}", file=sys.stderr)
    raise SystemExit(2) from None


def _silence_expected_warnings() -> None:
    """Silence what Lightning says of what auxlight does on purpose, and its advertisement."""
    for message in (
        ".*does not have many workers.*",  # all data is in memory, worker processes would only copy it
        ".*module.s. in eval mode at the start of training.*",  # an agent acts in evaluation mode
        ".*smaller than the logging interval.*",  # everything is logged by epoch
        ".*LeafSpec.*is deprecated.*",  # between Lightning 2.6 and newer torch
        ".*torch.jit.script.*is deprecated.*",  # in torch's own forward mode
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run's own
        ".*Couldn't infer the batch indices.*",  # predictions hold each image's position
        ".*The dirpath has changed from.*",  # where a checkpoint is looked at, or goes on elsewhere
    ):
        warnings.filterwarnings("ignore", message)
    messages = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    messages.addFilter(lambda record: "litlogger" not in record.getMessage())
