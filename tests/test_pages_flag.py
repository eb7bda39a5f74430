"""--pages: which pictures have overlays and a place in the gallery."""

from lpcam_jax.results.shown import SAMPLE, shown_pictures


def test_a_few_pictures_are_all_shown_and_of_many_a_sample_that_hardly_changes():
    few, many = [f"a/{n}" for n in range(SAMPLE)], [f"a/{n}" for n in range(10 * SAMPLE)]
    assert shown_pictures(few, "sample") == set(few) == shown_pictures(few, "all")
    assert shown_pictures(many, "all") == set(many)
    assert shown_pictures(few, "none") == set()
    sample = shown_pictures(many, "sample")
    assert len(sample) == SAMPLE
    assert len(sample & shown_pictures([*many, "one more"], "sample")) >= SAMPLE - 1


def test_without_pages_everything_else_is_written_and_pages_can_be_added_later(program, trained, tmp_path):
    words = ("infer.py", "--ckpt", trained, "--out", tmp_path, "--limit", 3, "--refine", "none")
    finished = program(*words, "--pages", "none")
    assert finished.code == 0, finished.err
    assert "index.html" not in finished.out
    assert len(list((tmp_path / "maps").glob("*.npz"))) == len(list((tmp_path / "seeds").glob("*.png"))) == 3
    assert (tmp_path / "metrics.json").exists()
    assert not any((tmp_path / name).exists() for name in ("overlays", "gallery", "index.html", "prototypes.html"))
    finished = program(*words)
    assert "look at index.html" in finished.out
    assert len(list((tmp_path / "overlays").glob("*.jpg"))) == 3
    assert len(list((tmp_path / "gallery" / "photo").glob("*.jpg"))) == 3
    # Killed while pages were added: the overlay is the last of their files.
    overlay = next((tmp_path / "overlays").glob("*.jpg"))
    overlay.unlink()
    assert program(*words).code == 0
    assert overlay.exists()
    assert program(*words, "--pages", "none").code == 0
    assert not any((tmp_path / name).exists() for name in ("index.html", "prototypes.html"))  # of another run
