"""A training whose weights are moved by hand: `Run` trains in a thread, `show` puts sliders and curves around it:

    run = live.Run(trainer, high)
    board = live.show(run, here, presets={"MSE only": {"mse": 1}, "the paper's": {"mse": 1, "relu2_2": 0.05}})

`blind_test` shows two pictures of nobody knows which method, and asks which looks better.

The training's thread writes numbers and a film of some details, the view reads them; neither waits for the other.
"""

from srkit.live.blind import BlindTest, blind_test
from srkit.live.coach import Mission
from srkit.live.dashboard import Dashboard, show
from srkit.live.replay import replay
from srkit.live.run import Run

__all__ = ["BlindTest", "Dashboard", "Mission", "Run", "blind_test", "replay", "show"]
