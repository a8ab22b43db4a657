"""One LightningDataModule per data set."""

from auxlight.datamodules.base import ImageDataModule
from auxlight.datamodules.cifar10 import CIFAR10DataModule
from auxlight.datamodules.cifar100 import CIFAR100SuperclassDataModule
from auxlight.datamodules.digits import DigitsDataModule
from auxlight.datamodules.image_folder import ImageFolderDataModule
from auxlight.datamodules.images import ImageSet
from auxlight.datamodules.multi_digit import MultiDigitsDataModule, MultiMNISTDataModule
from auxlight.datamodules.npz import NpzDataModule
from auxlight.datamodules.svhn import SVHNDataModule

__all__ = [
    "CIFAR10DataModule",
    "CIFAR100SuperclassDataModule",
    "DigitsDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ImageSet",
    "MultiDigitsDataModule",
    "MultiMNISTDataModule",
    "NpzDataModule",
    "SVHNDataModule",
]
