"""The digest of code by which base models are recognised."""

from tga_jax.miniature.sources import without_words

SOURCE = '''"""A module."""

SIDE = 3  # of a square


class Box:
    """A box."""

    def area(self, text="# no comment"):
        """Several
        lines."""
        # Why.
        return SIDE**2
'''


def test_words_are_left_out_and_code_is_kept() -> None:
    assert without_words(SOURCE) == (
        'SIDE = 3\nclass Box:\n    def area(self, text="# no comment"):\n        return SIDE**2\n'
    )
    changed = SOURCE.replace("A box", "A crate").replace("Why", "Because").replace("square", "cube")
    assert without_words(changed) == without_words(SOURCE)
    assert without_words(SOURCE.replace("**2", "**3")) != without_words(SOURCE)
