"""python -m lpcam_jax sweep: the method's parameters around those of a run."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from test_commands import assert_one_line_error

from lpcam_jax import cluster_classes, select_prototypes
from lpcam_jax.data.sources import seed_source
from lpcam_jax.local_features import FeatureSample
from lpcam_jax.machine.locks import in_use
from lpcam_jax.report.sweep import spread, sweep_table
from lpcam_jax.results.counts import THRESHOLDS
from lpcam_jax.systems.lpcam import sensitivity
from lpcam_jax.systems.lpcam.config import Clustering
from lpcam_jax.systems.lpcam.feature_sampling import sample_features
from lpcam_jax.systems.lpcam.sensitivity import GRIDS, Setting, cluster_sets, make_all, own_setting, settings_around
from lpcam_jax.systems.prototyping.stored_prototypes import load_prototypes
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state

pytestmark = pytest.mark.rest

FEW = {"threshold": (0.05, 0.1), "mu_f": (0.5, 0.9), "mu_b": (0.9, 0.95), "clusters": (5,)}


@pytest.fixture(scope="module")
def swept(program, trained, tmp_path_factory):
    """(What the command printed, its folder, its numbers), with the grids of FEW; look, do not touch."""
    out = tmp_path_factory.mktemp("sweep") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "GRIDS", FEW)
        finished = program("lpcam_jax.__main__", "sweep", "--ckpt", trained, "--out", out, "--seeds", 2)
    assert finished.code == 0, finished.err

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    assert (
        "features: at most 256 of each class and of its context are kept, " in finished.err
    )  # the memory, before the work
    return finished.out, out, json.loads((out / "sweep.json").read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture
def sample():
    """Features of three classes and their contexts, of eight dimensions."""
    rng, sample = np.random.default_rng(0), FeatureSample(3, 8, size=64)
    for number, n, context in np.ndindex(3, 3, 2):
        features = rng.random((4, 4, 8)).astype(np.float32)
        sample.add(number, features, n, np.ones((4, 4)), context=bool(context))
    return sample


@pytest.fixture
def weights():
    return jax.random.normal(jax.random.key(1), (8, 3))


def test_one_parameter_is_varied_at_a_time_and_the_own_value_is_among_them():
    own = own_setting(Clustering(threshold=0.12, clusters=3, context=(0.05, 0.9)))
    assert own == Setting(threshold=0.12, mu_f=0.9, mu_b=0.9, clusters=3)
    around = settings_around(own, 6)
    assert list(around) == ["threshold", "mu_f", "mu_b", "clusters"]
    for parameter, settings in around.items():
        values = [getattr(one, parameter) for one in settings]
        assert values == sorted({*GRIDS[parameter], getattr(own, parameter)})
        assert all(one._replace(**{parameter: getattr(own, parameter)}) == own for one in settings)
    assert len(around["mu_f"]) == len(GRIDS["mu_f"])
    assert len(around["clusters"]) == len(GRIDS["clusters"]) + 1


def test_with_two_classes_the_bounds_of_the_scores_are_not_varied():
    """They are fixed, and all rows would be the same."""
    assert list(settings_around(own_setting(Clustering()), 2)) == ["threshold", "clusters"]


def test_the_files_are_there_and_the_table_has_every_setting(swept):
    text, out, result = swept
    assert {path.name for path in out.iterdir()} == {"sweep.json", "sweep.png"}
    with Image.open(out / "sweep.png") as image:
        image.load()
        assert image.width > 4 * image.height
    table = sweep_table(result)
    assert text == table + "\n"
    rows = table.splitlines()
    assert len(rows) == 3 + 2 + 2 + 2 + 2
    assert {row.count("|") for row in rows} == {10}
    assert [row.split("|")[2].strip() for row in rows if "**" in row] == ["**0.1**", "**0.9**", "**0.9**", "**3**"]


def test_the_protocol_stands_beside_the_numbers(swept, tiny):
    protocol = swept[2]["protocol"]
    assert protocol["seeds"] == [0, 1]
    assert protocol["prototypes"]["clusters"] == tiny.prototypes.clusters
    assert protocol["inference"]["scales"] == [1.0, 0.5]
    assert (protocol["data"]["source"], protocol["data"]["split"]) == ("shapes", "24 scenes, seed 0")
    assert (protocol["crf"], protocol["ignored"]) == (False, 255)
    assert swept[2]["scored"] == 24


def test_at_its_own_values_the_run_gets_the_scores_of_infer(swept, mapped):
    expected = json.loads((mapped[0] / "metrics.json").read_text())["scores"]
    for found, method in ((swept[2]["cam"], "cam"), (swept[2]["lpcam"][0], "lpcam")):
        np.testing.assert_allclose(found["curve"]["miou"], expected[method]["curve"]["miou"], atol=1e-3)
        for at in ("best", "fixed"):
            for key in ("threshold", "miou", "fp", "fn", "precision", "recall"):
                assert found[at][key] == pytest.approx(expected[method][at][key], abs=1e-3), (method, at, key)


def test_every_panel_has_the_own_values_once_and_they_agree(swept):
    result = swept[2]
    for points in result["settings"].values():
        (own,) = [point for point in points if point["own"]]
        assert own["seeds"] == result["lpcam"]
        for point in points:
            assert len(point["seeds"]) == 2
            assert all(len(one["curve"]["miou"]) == len(THRESHOLDS) for one in point["seeds"])
            assert all(len(one["class_prototypes"]) == 6 for one in point["seeds"])
    (few, *_, many) = result["settings"]["clusters"]
    assert max(few["seeds"][0]["class_prototypes"]) <= few["value"] < many["value"]


def test_the_runs_seed_gives_the_prototypes_of_the_run(trained, mesh):
    run = Run.open(trained)
    state, source = trained_state(run, devices=mesh), seed_source(run.config)
    taus = (0.05, run.config.prototypes.threshold)
    samples = sample_features(run.config, state, source, thresholds=taus, devices=mesh)
    assert samples[0].seen[:, 0].sum() > samples[1].seen[:, 0].sum()  # a lower tau gives the class more
    own = own_setting(run.config.prototypes)
    made = make_all(
        [own],
        [run.config.seed],
        dict(zip(taus, samples, strict=True)),
        state.parameters["head"],
        prototypes=run.config.prototypes,
        devices=mesh,
    )
    for found, expected in zip(made[own, run.config.seed][:4], load_prototypes(run)[:4], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_centres_are_shared_by_all_mu_and_each_tau_and_k_is_clustered_once(sample, weights, mesh, monkeypatch):
    calls = []

    def counted(*arguments, **options):
        calls.append(options["clusters"])
        return cluster_sets(*arguments, **options)

    monkeypatch.setattr(sensitivity, "cluster_sets", counted)
    own = Setting(0.1, 0.9, 0.9, 3)
    settings = [own, own._replace(mu_f=0.5), own._replace(mu_b=0.6), own._replace(clusters=1)]
    samples = {0.1: sample}
    made = make_all(settings, [0, 7], samples, weights, prototypes=Clustering(clusters=3), devices=mesh)
    assert sorted(calls) == [1, 1, 3, 3]
    assert not samples  # given back as soon as it is clustered
    assert list(dict.fromkeys(setting for setting, _ in made)) == settings
    for seed in (0, 7):
        for other in settings[1:3]:
            np.testing.assert_array_equal(made[own, seed].class_centres, made[other, seed].class_centres)
            np.testing.assert_array_equal(made[own, seed].context_centres, made[other, seed].context_centres)
    assert (np.asarray(made[own, 0].class_centres) != np.asarray(made[own, 7].class_centres)).any()
    assert made[settings[1], 0].class_mask.sum() > made[own, 0].class_mask.sum()


def test_a_setting_is_what_the_functions_of_the_method_give(sample, weights, mesh):
    setting, config = Setting(0.2, 0.6, 0.7, 3), Clustering(context=(0.1, 0.9))
    sets = [sample.points(context=context) for context in (False, True)]
    keys = jax.random.split(jax.random.key(5))
    means = [cluster_classes(key, *one, k=3).means for key, one in zip(keys, sets, strict=True)]
    expected = select_prototypes(*means, weights, mu_f=0.6, context=(0.1, 0.7))
    made = make_all([setting], [5], {0.2: sample}, weights, prototypes=config, devices=mesh)
    for found, one in zip(made[setting, 5][:4], expected[:4], strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-5)


def test_features_are_clustered_as_the_config_says(sample, weights, mesh):
    sets = [sample.points(context=context) for context in (False, True)]
    keys = jax.random.split(jax.random.key(5))
    options = {"k": 3, "update": "mean", "restarts": 2}
    means = [cluster_classes(key, *one, **options).means for key, one in zip(keys, sets, strict=True)]
    config = Clustering(update="mean", restarts=2)
    made = make_all([Setting(0.2, 0.6, 0.7, 3)], [5], {0.2: sample}, weights, prototypes=config, devices=mesh)
    ((_, found),) = made.items()
    np.testing.assert_allclose(found.class_centres, means[0], rtol=1e-5)
    np.testing.assert_allclose(found.context_centres, means[1], rtol=1e-5)


def test_one_cluster_is_the_mean_of_all(sample, mesh):
    sets = [sample.points(context=context) for context in (False, True)]
    means = cluster_sets(sets, 0, clusters=1, update="spherical", restarts=1, devices=mesh)
    for found, (points, point_weights) in zip(means, sets, strict=True):
        expected = (points * point_weights[..., None]).sum(axis=1) / point_weights.sum(axis=1)[:, None]
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def test_a_spread_needs_two_values():
    assert spread([0.5]) == "50.0"
    assert spread([0.5, 0.6]) == "55.0 ± 7.1"


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (("--seeds", 0), "--seeds is 0; cluster at least once"),
        (("--limit", 0), "--limit is 0; use at least one picture"),
    ],
)
def test_numbers_that_leave_nothing(program, trained, tmp_path, words, pattern):
    finished = program("lpcam_jax.__main__", "sweep", "--ckpt", trained, "--out", tmp_path, *words)
    assert_one_line_error(finished, pattern)


def test_a_run_that_is_not_there(program, tmp_path):
    finished = program("lpcam_jax.__main__", "sweep", "--ckpt", tmp_path / "nothing", "--out", tmp_path)
    assert_one_line_error(finished, r"holds no run \(no config.json\)")


def test_an_output_below_a_file_ends_before_the_work(program, trained, tmp_path):
    (tmp_path / "file").write_text("")
    finished = program("lpcam_jax.__main__", "sweep", "--ckpt", trained, "--out", tmp_path / "file" / "out")
    assert_one_line_error(finished, "a file stands where a folder is needed")
    assert "features" not in finished.err


def test_an_earlier_sweep_stays_until_this_one_is_done(program, trained, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sensitivity, "sweep_parameters", stopped)
    (tmp_path / "sweep.json").write_text("hours of work")
    assert program("lpcam_jax.__main__", "sweep", "--ckpt", trained, "--out", tmp_path).code == 130
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("sweep.json", "hours of work")]


def test_a_second_sweep_is_refused(program, trained, tmp_path):
    with in_use(tmp_path, "sweep", flag="--out"):
        finished = program("lpcam_jax.__main__", "sweep", "--ckpt", trained, "--out", tmp_path)
    assert_one_line_error(finished, "is in use by another sweep .*; wait for it, or choose another --out")


def run_on(folder, trained, tmp_path):
    """A copy of the run's config that names another data set."""
    values = json.loads((trained / "config.json").read_text())
    values["config"]["data"] |= {"source": "folder", "root": str(folder)}
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(values))
    return run


@pytest.mark.parametrize(
    ("with_masks", "pattern"),
    [(False, "has no masks to score against"), (True, "was trained on fox, .*, the data set has cat; name the data")],
)
def test_a_data_set_that_does_not_fit(program, trained, tmp_path, with_masks, pattern):
    folder = tmp_path / "data"
    for kind in ("images", "masks")[: 1 + with_masks]:
        (folder / kind).mkdir(parents=True)
        Image.fromarray(np.ones((8, 8), np.uint8)).save(folder / kind / "a.png")
    (folder / "labels.csv").write_text("name,labels\na,cat\n")
    words = ("--ckpt", run_on(folder, trained, tmp_path), "--out", tmp_path / "out")
    assert_one_line_error(program("lpcam_jax.__main__", "sweep", *words), pattern)


def test_help_shows_an_example(program):
    finished = program("lpcam_jax.__main__", "sweep", "--help")
    assert finished.code == 0
    assert "python -m lpcam_jax sweep --ckpt" in finished.out
