"""Functions that torch leaves to MKL are called once by one thread, before several can call them at a time."""

from torch.utils._python_dispatch import TorchDispatchMode

from ase_nbody.nn import VECTOR_FUNCTIONS

OF_MKL = {
    "acos",
    "asin",
    "atan",
    "cos",
    "erf",
    "erfc",
    "exp",
    "expm1",
    "log",
    "log10",
    "log1p",
    "sin",
    "sqrt",
    "tan",
    "tanh",
}


class Names(TorchDispatchMode):
    """The names of the operations within."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_all_that_an_evaluation_and_a_training_use_are_known(make_network, predict, systems):
    network = make_network(repulsion=True)
    with Names() as names:
        prediction = predict(network, systems["molecule"](), create_graph=True)
        prediction.forces.square().sum().backward()
    assert names.seen & OF_MKL == {function.__name__ for function in VECTOR_FUNCTIONS}
