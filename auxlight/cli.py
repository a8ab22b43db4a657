"""`auxlight fit|validate|test|predict --config METHOD.yaml [--config OVERLAY.yaml …] [--KEY VALUE …]`."""

import sys
import warnings
from pathlib import Path
from typing import NoReturn

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from auxlight.datamodules import ImageDataModule
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.hparams import HyperparameterTab
from auxlight.modules import AuxiliaryClassifier
from auxlight.parser_errors import parser_cause
from auxlight.prediction import PredictionWriter
from auxlight.progress import PhaseProgressBar


class AuxlightCLI(LightningCLI):
    """LightningCLI with auxlight's links and defaults; after a fit it tests the checkpoint that validated best."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The data's hierarchy reaches the model; TensorBoard, checkpoints and bars are on by default."""
        parser.link_arguments(
            "data.hierarchy", "model.init_args.hierarchy", compute_fn=_block_sizes, apply_on="instantiate"
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/accuracy",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "trainer.logger": {
                    "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
                    "init_args": {"save_dir": "logs", "name": "auxlight", "default_hp_metric": False},
                },
            }
        )

    def before_instantiate_classes(self) -> None:
        """Add the bar that names its phases, unless the user wants none or another; resume in the run's own folder."""
        config = self.config[self.subcommand]
        trainer = config.trainer
        callbacks = trainer.callbacks or []
        chosen = [str(c.class_path) for c in (callbacks if isinstance(callbacks, list) else [callbacks])]
        if trainer.enable_progress_bar is not False and not any(path.endswith("ProgressBar") for path in chosen):
            self.trainer_defaults["callbacks"].append(PhaseProgressBar())
        if self.subcommand == "fit" and config.get("ckpt_path"):
            run = Path(config.ckpt_path).resolve().parents[1]
            logger = trainer.logger
            arguments = logger.get("init_args") if isinstance(logger, Namespace) else None
            if arguments and run.parent == Path(arguments.save_dir, arguments.name or "").resolve():
                arguments.version = run.name

    def after_fit(self) -> None:
        """Read the test set once, and say where everything lies."""
        checkpoint = self.trainer.checkpoint_callback  # None in a fast_dev_run
        best = checkpoint.best_model_path if isinstance(checkpoint, ModelCheckpoint) else ""
        self.trainer.test(self.model, self.datamodule, ckpt_path=best or None)
        if self.trainer.is_global_zero and isinstance(checkpoint, ModelCheckpoint):
            print(f"Tested:      {best or 'the network as it is'} (chosen by {checkpoint.monitor})")
            print(f"Checkpoints: {checkpoint.dirpath}/best.ckpt, last.ckpt (resume: --ckpt_path …/last.ckpt)")
            print(f"TensorBoard: tensorboard --logdir {self.trainer.log_dir}")


def last_checkpoint() -> ModelCheckpoint:
    """Writes ``last.ckpt`` after each epoch, from which a run resumes to the same weights.

    `save_last` of the checkpoint that validated best would not do: it writes only when the score improves, and from
    inside the epoch.
    """
    return ModelCheckpoint(filename="last", enable_version_counter=False, save_on_train_epoch_end=True)


def _block_sizes(hierarchy: LabelHierarchy) -> list[int]:
    """The hierarchy as plain values, for the checkpoint."""
    return list(hierarchy.psi)


def main(args: ArgsType = None) -> None:
    """Run the command line; a user's mistake ends it with one line and exit code 2."""
    _silence_expected_warnings()
    try:
        AuxlightCLI(
            AuxiliaryClassifier,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": [HyperparameterTab(), last_checkpoint()]},
            parser_kwargs={"exit_on_error": False},
            args=args,
        )
    except InputError as error:
        _fail(str(error))
    except ArgumentError as error:
        _fail(parser_cause(str(error)))
    except ValueError as error:
        # jsonargparse wraps what a constructor raises into a report on every type that it tried.
        if not str(error).startswith("Does not validate"):
            raise
        _fail(parser_cause(str(error)))


def _fail(message: str) -> NoReturn:
    print(f"auxlight: error: {message}", file=sys.stderr)
    raise SystemExit(2) from None


def _silence_expected_warnings() -> None:
    """Silence what Lightning warns about and auxlight does on purpose."""
    for message in (
        ".*does not have many workers.*",  # all data is in memory, worker processes would only copy it
        ".*module.s. in eval mode at the start of training.*",  # an agent acts in evaluation mode
        ".*smaller than the logging interval.*",  # everything is logged by epoch
    ):
        warnings.filterwarnings("ignore", message)
