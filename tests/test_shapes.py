import numpy as np
import pytest

from lpcam_jax.data.shapes import HEAD, Shapes

FAVOURITE = {"fox": "meadow", "pig": "meadow", "frog": "shore", "toucan": "shore", "owl": "street", "panda": "street"}


@pytest.fixture(scope="module")
def shapes():
    return Shapes(200)


@pytest.fixture(scope="module")
def records(shapes):
    return [shapes[i] for i in range(len(shapes))]


def assert_same(a, b):
    assert a.id == b.id
    for x, y in zip(a[1:], b[1:], strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_same_seed_same_bytes_whatever_the_count_and_order(records):
    other = Shapes(37)
    for i in (36, 0, 5, 36):
        assert_same(other[i], records[i])
    np.testing.assert_array_equal(other.labels, [r.labels for r in records[:37]])


def test_another_seed_gives_other_scenes(records):
    other = Shapes(5, seed=1)
    assert not any(np.array_equal(other[i].image, records[i].image) for i in range(5))


def test_no_scene_occurs_twice(records):
    assert len({r.image.tobytes() for r in records}) == len(records)


def test_records_have_the_promised_form(shapes, records):
    assert shapes.has_masks
    assert list(shapes.ids) == [r.id for r in records]
    assert shapes.ids[42] == "scene_00042"
    assert len(set(shapes.ids)) == len(shapes) == 200
    assert shapes.labels.shape == (200, len(shapes.class_names))
    assert shapes.labels.dtype == np.float32
    for i, r in enumerate(records):
        assert r.image.dtype == r.mask.dtype == np.uint8
        assert r.image.shape == (*shapes.size(i), 3)
        assert r.mask.shape == shapes.size(i)
        np.testing.assert_array_equal(r.labels, shapes.labels[i])


def test_labels_are_the_classes_seen_in_the_mask(records):
    for r in records:
        area = np.bincount(r.mask.ravel(), minlength=256)
        np.testing.assert_array_equal(area[1:7] > 0, r.labels == 1)
        assert area[1:7][r.labels == 1].min() >= 60
        assert area[7:255].sum() == 0
        assert area[255] > 0


def test_a_void_line_lies_between_every_animal_and_the_rest(records):
    for r in records:
        for a, b in ((r.mask[1:], r.mask[:-1]), (r.mask[:, 1:], r.mask[:, :-1])):
            assert not np.any((a != b) & (a != 255) & (b != 255))


def test_every_class_label_count_and_several_sizes_occur(shapes):
    assert shapes.labels.any(axis=0).all()
    assert set(shapes.labels.sum(axis=1)) == {1, 2, 3}
    sizes = {shapes.size(i) for i in range(len(shapes))}
    assert 4 <= len(sizes) <= 12
    assert all(80 <= side <= 144 for size in sizes for side in size)
    assert {np.sign(h - w) for h, w in sizes} == {-1, 0, 1}


def test_classes_keep_to_their_context_three_times_out_of_four():
    shapes = Shapes(3000)
    contexts = np.array(shapes.contexts)
    for k, name in enumerate(shapes.class_names):
        seen_in = contexts[shapes.labels[:, k] == 1]
        assert 0.7 < np.mean(seen_in == FAVOURITE[name]) < 0.8
        assert set(seen_in) == {"meadow", "shore", "street"}


def test_contexts_show_in_the_pictures(shapes, records):
    # The bottom rows are ground: grass is green, sand is warm, paving is neither.
    ground = np.array([r.image[-8:][r.mask[-8:] == 0].mean(axis=0) for r in records])
    contexts = np.array(shapes.contexts)
    red, green, blue = ground.T
    assert np.median((green - red)[contexts == "meadow"]) > 20
    assert np.median((red - blue)[contexts == "shore"]) > 40
    assert abs(np.median((red - blue)[contexts == "street"])) < 20


def test_heads_are_a_small_visible_part_of_every_animal(shapes, records):
    shares = []
    for i, r in enumerate(records[:100]):
        head = shapes.parts(i) == HEAD
        shares += [head[r.mask == k + 1].mean() for k in np.flatnonzero(r.labels)]
    assert 0.14 < np.mean(shares) < 0.2
    assert min(shares) > 0.05
    assert max(shares) < 0.3


def test_negative_indices_and_the_end_of_the_list(shapes, records):
    assert_same(shapes[-1], records[-1])
    with pytest.raises(IndexError):
        shapes[200]
