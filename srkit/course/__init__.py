"""The lessons as notebooks: run them headless, and show a helper's source in them."""

from srkit.course.lessons import run, show_source

__all__ = ["run", "show_source"]
