"""Trains model.py's network and makes the figure to hand in: python train.py, again to go on after a stop."""

import info
from model import network

import srkit
from srkit import figures
from srkit.data import images

# Your turn: which pictures contest.toml allows, how long, which loss, which learning rate.
PICTURES = "bundled"
CONFIG = srkit.TrainConfig(steps=200, batch_size=8, patch_size=64, lr=1e-3, schedule="cosine")

if __name__ == "__main__":
    student = srkit.Student(f"{info.FIRST_NAME} {info.LAST_NAME}", info.ID, info.EMAIL)
    here = srkit.setup("assignment", student)
    dataset, validation = srkit.load_dataset(PICTURES, "train"), srkit.load_dataset(PICTURES, "val")
    out = here.runs / "assignment"
    trainer = srkit.Trainer(network(), dataset, CONFIG, validation=validation, out=out, student=student)
    trainer.fit(resume=True)

    # The figure is of what you hand in: srkit submit runs/assignment/last.pt
    model = trainer.result
    table = srkit.evaluate(model, validation)
    print(table)
    name, high = validation[0]
    high = images.crop_to_multiple(high, model.scale)
    low = images.degrade(high, model.scale)
    pictures = {"bicubic": images.resize(low, scale=model.scale), "mine": srkit.upscale(model, low)}
    box = figures.busiest(high, min(128, *high.shape[1:]))
    page = figures.comparison(pictures, high, box, footer=name, border=model.scale, insets=True)
    figures.save(page, "comparison", here, trainer, table)
