"""A training is the same, whatever the program around it has set in torch."""

import pytest
import torch

from ase_nbody.files.archive import load_model
from ase_nbody.training import TrainingConfig, train


@pytest.fixture(params=["inference mode", "default device"])
def setting(request):
    """Something that the program around may have set."""
    if request.param == "inference mode":
        return torch.inference_mode()
    return torch.device("meta")  # tensors there have no numbers, so that one of them spoils everything


def test_a_training_under_a_setting_of_torch(setting, configuration):
    """Nothing that it made then is left behind either, such as constants that are kept."""
    config = TrainingConfig.from_yaml(configuration(epochs=1))
    with setting:
        inside = load_model(train(config))
    again = TrainingConfig.from_yaml(configuration(output="again", epochs=1))
    after = load_model(train(again))
    for name, weight in after.state_dict().items():
        torch.testing.assert_close(inside.state_dict()[name], weight, rtol=0, atol=0)
