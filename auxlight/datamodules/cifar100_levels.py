"""The four levels of CIFAR-100's classes: 100 fine, 20 official superclasses, MAXL's 10 and 3."""

from typing import Literal

import torch
from torch import Tensor

Level = Literal[3, 10, 20, 100]

# Table 1 of the RL-AUX paper (Krizhevsky, 2009). Superclass ids are alphabetical, as are the fine classes'.
SUPERCLASSES = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
FINE_CLASSES = sorted(fine for members in SUPERCLASSES.values() for fine in members)

# From MAXL's code: superclass → one of 10, and those 10 → one of 3.
_TWENTY_TO_TEN = torch.tensor([1, 2, 5, 6, 5, 6, 6, 3, 0, 7, 8, 0, 1, 3, 4, 0, 2, 5, 9, 9])
_TEN_TO_THREE = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 2, 2])


def level_labels(level: Level) -> Tensor:
    """(100,) int64: the class of each fine class at a level."""
    if level == 100:
        return torch.arange(100)
    owner = {fine: i for i, members in enumerate(SUPERCLASSES.values()) for fine in members}
    labels = torch.tensor([owner[fine] for fine in FINE_CLASSES])
    if level == 20:
        return labels
    labels = _TWENTY_TO_TEN[labels]
    return labels if level == 10 else _TEN_TO_THREE[labels]
