"""purerl: policy-gradient agents on pure-JAX environments, many seeds in one compiled program."""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from purerl.algorithms import A2C as A2C
    from purerl.algorithms import PPO as PPO
    from purerl.algorithms import REINFORCE as REINFORCE
    from purerl.algorithms import VPG as VPG
    from purerl.algorithms import Algorithm as Algorithm
    from purerl.config.config import Config as Config
    from purerl.config.factories import a2c as a2c
    from purerl.config.factories import ppo as ppo
    from purerl.config.factories import reinforce as reinforce
    from purerl.config.factories import vpg as vpg
    from purerl.config.optimizers import clipped_adam as clipped_adam
    from purerl.config.presets import preset as preset
    from purerl.config.sweeps import LogUniform as LogUniform
    from purerl.config.sweeps import Uniform as Uniform
    from purerl.config.sweeps import sweep as sweep
    from purerl.distributions import Categorical as Categorical
    from purerl.distributions import DiagonalGaussian as DiagonalGaussian
    from purerl.distributions import SquashedGaussian as SquashedGaussian
    from purerl.envs import Box as Box
    from purerl.envs import Discrete as Discrete
    from purerl.envs import env_names as env_names
    from purerl.envs import make_env as make_env
    from purerl.evaluation import Evaluation as Evaluation
    from purerl.evaluation import evaluate as evaluate
    from purerl.experiment.hosts.errors import RunError as RunError
    from purerl.experiment.hosts.errors import Stopped as Stopped
    from purerl.experiment.logging.hooks import Chunk as Chunk
    from purerl.experiment.logging.loggers import JsonLines as JsonLines
    from purerl.experiment.logging.loggers import TensorBoard as TensorBoard
    from purerl.experiment.logging.loggers import WeightsAndBiases as WeightsAndBiases
    from purerl.experiment.play.policies import load_policy as load_policy
    from purerl.experiment.play.policies import save_policy as save_policy
    from purerl.experiment.report.run_result import Run as Run
    from purerl.experiment.report.sweep_ranking import Sweep as Sweep
    from purerl.experiment.resuming import resume as resume
    from purerl.experiment.runner import run as run
    from purerl.experiment.sweep_runner import run_sweep as run_sweep
    from purerl.networks.defaults import DefaultBaseline as DefaultBaseline
    from purerl.networks.defaults import DefaultPolicy as DefaultPolicy
    from purerl.networks.network import carried as carried
    from purerl.planning.plans import Plan as Plan
    from purerl.planning.plans import plan as plan
    from purerl.returns import gae as gae
    from purerl.returns import reward_to_go as reward_to_go
    from purerl.seeds import seed_keys as seed_keys
    from purerl.seeds import train_seeds as train_seeds
    from purerl.seeds import train_sweep as train_sweep
    from purerl.training import TrainState as TrainState
    from purerl.training import advance as advance
    from purerl.training import init as init
    from purerl.training import train as train
    from purerl.training import train_step as train_step
    from purerl.types import Baseline as Baseline
    from purerl.types import Distribution as Distribution
    from purerl.types import Env as Env
    from purerl.types import Estimate as Estimate
    from purerl.types import Hyperparams as Hyperparams
    from purerl.types import Metrics as Metrics
    from purerl.types import Policy as Policy
    from purerl.types import Transition as Transition

# Names are imported when they are first used, so that `import purerl` is quick and starts no
# backend: device counts can still be set after it.
_HOME = {
    "algorithms": ("A2C", "PPO", "REINFORCE", "VPG", "Algorithm"),
    "networks.network": ("carried",),
    "config.config": ("Config",),
    "distributions": ("Categorical", "DiagonalGaussian", "SquashedGaussian"),
    "envs": ("Box", "Discrete", "env_names", "make_env"),
    "evaluation": ("Evaluation", "evaluate"),
    "experiment.hosts.errors": ("RunError", "Stopped"),
    "experiment.logging.hooks": ("Chunk",),
    "experiment.logging.loggers": ("JsonLines", "TensorBoard", "WeightsAndBiases"),
    "planning.plans": ("Plan", "plan"),
    "experiment.play.policies": ("load_policy", "save_policy"),
    "experiment.report.run_result": ("Run",),
    "experiment.resuming": ("resume",),
    "experiment.runner": ("run",),
    "experiment.sweep_runner": ("run_sweep",),
    "experiment.report.sweep_ranking": ("Sweep",),
    "config.factories": ("a2c", "ppo", "reinforce", "vpg"),
    "networks.defaults": ("DefaultBaseline", "DefaultPolicy"),
    "config.optimizers": ("clipped_adam",),
    "config.presets": ("preset",),
    "returns": ("gae", "reward_to_go"),
    "seeds": ("seed_keys", "train_seeds", "train_sweep"),
    "config.sweeps": ("LogUniform", "Uniform", "sweep"),
    "training": ("TrainState", "advance", "init", "train", "train_step"),
    "types": (
        "Baseline",
        "Distribution",
        "Env",
        "Estimate",
        "Hyperparams",
        "Metrics",
        "Policy",
        "Transition",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


class _Package(ModuleType):
    """Keeps `purerl.train` the function: importing the file of that name would set the module."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'purerl' has no attribute {name!r}")
    return getattr(importlib.import_module(f"purerl.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULE_OF]
