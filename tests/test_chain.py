"""Chains: which command each stage becomes, which are done again, and a whole one, stopped and continued."""

import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from browsing import Browser
from conftest import HANGS, REPOSITORY
from test_commands import assert_one_line_error
from test_evaluate import write_mask

from lpcam_jax.chain.dataset import dataset_digest
from lpcam_jax.chain.flags import group
from lpcam_jax.chain.page import write_chain_page
from lpcam_jax.chain.paper import ENTRIES, found, stages_of
from lpcam_jax.chain.plan import plan
from lpcam_jax.chain.progress import Progress
from lpcam_jax.chain.recipe import Chain, load_chain
from lpcam_jax.machine.errors import UserError
from lpcam_jax.training.run import Run


def commands(file: Path, *words: str, without=(), also=()) -> dict[str, str]:
    """The command of every step, with the folders left out."""
    steps = plan(load_chain(str(file)).chosen(without=without, also=also), group(words), Path("W"))
    return {step.key: " ".join(step.words).replace(f"{file.parent}/", "") for step in steps}


def test_each_stage_learns_from_what_was_made_last(chain):
    found = commands(chain)
    assert found["irn/train"] == (
        "train irn.py --model.weights W/classifier/run --data.maps W/classifier/results --workdir W/irn/run"
    )
    assert found["irn/apply"] == "infer --ckpt W/irn/run --maps W/classifier/results --out W/irn/results"
    assert "--data.masks W/irn/results/masks" in found["network/train"]


def test_a_stage_more_or_less_needs_no_other_change(chain):
    with_amn = commands(chain, also=["amn"])
    assert "--data.maps W/amn/results" in with_amn["irn/train"]
    assert "--labels.method amn" in with_amn["irn/train"]
    seeds_alone = commands(chain, without=["irn"])
    assert "--data.masks W/classifier/results/pseudo_masks" in seeds_alone["network/train"]
    unrefined = commands(chain, "--classifier.refine", "none", without=["irn"])
    assert "--data.masks W/classifier/results/seeds" in unrefined["network/train"]


def test_drawn_scenes_are_scored_with_the_masks_of_the_same_scenes(chain):
    found = commands(chain, "--seed", "3", "--classifier.split", "all[:4]")
    assert "--seed 3" in found["classifier/train"]
    assert "--seed 3" in found["classifier/score"]


def test_flags_reach_the_stages_that_have_them(chain):
    found = commands(
        *(chain, "--limit", "8", "--irn.training.epochs=1", "--segmentation.model.head-width", "4"),
        *("--prototypes.clusters", "2", "--inference.max-shapes", "3", "--pages", "none"),
    )
    assert all("--limit 8" in command for command in found.values())
    assert [key for key, command in found.items() if "--training.epochs=1" in command] == ["irn/train"]
    assert [key for key, command in found.items() if "--model.head-width 4" in command] == ["network/train"]
    assert [key for key, command in found.items() if "--prototypes.clusters 2" in command] == ["classifier/train"]
    assert all("--inference.max-shapes 3" in command for command in found.values())
    assert [key for key, command in found.items() if "--pages none" in command] == [
        key for key in found if "apply" in key
    ]


def test_pictures_that_others_learn_from_are_not_those_that_are_scored(chain):
    found = commands(chain, "--classifier.split", "all[:20]", "--classifier.data.seeds", "all[20:]")
    assert found["classifier/score"] == (
        "evaluate classifier.py --data.seeds all[20:] --predictions W/classifier/results --out W/classifier/scores"
    )


def test_the_last_of_two_values_counts(chain):
    twice = ("--classifier.split", "all[:20]", "--classifier.split", "all")
    assert "classifier/score" not in commands(chain, *twice)  # what is made is what is scored


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["--irn.training.epoch", "3"],
            "--irn.training.epoch: irn has no such flag; did you mean --irn.training.epochs?",
        ),
        (["--trainning.epochs", "3"], "no stage has such a flag; did you mean --training.epochs?"),
        (["--trail"], "--trail: no stage has such a flag; did you mean --trial?"),
        (["--data.maps", "elsewhere"], "--data.maps is set by the chain"),
        (["--without", "edam"], "--without edam: the stages of this chain are classifier, amn, irn, network."),
        (["--only", "edam"], "--only edam: the stages of this chain are classifier, irn, network."),
        (["--without", "classifier"], "the stage irn learns from heat maps, and no stage before it makes any."),
        (["--irn.recipe", "nowhere.py"], "there is no recipe nowhere.py"),
        (["--model.weights", "nowhere.npz"], "--model.weights nowhere.npz does not exist; nothing was begun."),
        (["--saliency", "nowhere.onnx"], "--saliency nowhere.onnx does not exist; nothing was begun."),
    ],
)
def test_what_cannot_work_is_said_before_anything_begins(program, chain, tmp_path, words, line):
    refused = program("lpcam_jax.__main__", "chain", chain, "--workdir", tmp_path / "W", *words)
    assert_one_line_error(refused, f".*{re.escape(line)}")
    assert not (tmp_path / "W").exists()


def test_an_optional_stage_can_be_the_only_one(program, chain, tmp_path):
    shown = program("lpcam_jax.__main__", "chain", chain, "--workdir", tmp_path / "W", "--dry-run", "--only", "amn")
    assert shown.code == 0, shown.err
    assert "amn/train" in shown.out
    assert "network" not in shown.out


def test_a_recipe_of_the_other_kind_says_what_it_is_for(program, chain, tmp_path):
    refused = program("lpcam_jax.__main__", "chain", tmp_path / "irn.py", "--workdir", tmp_path / "W")
    assert_one_line_error(refused, r".*is for train.py: it has get_config\(\), not get_chain\(\)")
    assert_one_line_error(program("train.py", chain, "--workdir", tmp_path / "W"), ".*is for python -m lpcam_jax chain")


SWEEPING = """
from lpcam_jax.chain.recipe import Chain, Stage

def get_chain():
    return Chain((
        Stage("classifier", "classifier.py"),
        Stage("figure5", "classifier.py", ("--seeds", "3"), "classifier", sweeps=True),
    ))
"""


@pytest.fixture
def sweeping(chain) -> Path:
    """A chain of a classifier and a sweep of its parameters."""
    file = chain.parent / "sweeping.py"
    file.write_text(SWEEPING)
    return file


def test_a_sweep_has_two_flags_of_its_own(sweeping):
    found = commands(sweeping, "--limit", "8", "--figure5.seeds", "1", "--training.epochs", "2")
    assert found["figure5/sweep"] == (
        "sweep --ckpt W/classifier/run --seeds 3 --limit 8 --seeds 1 --out W/figure5/results"
    )
    with pytest.raises(UserError, match=r"--figure5.training.epochs: figure5 sweeps, and has --figure5.seeds and"):
        commands(sweeping, "--figure5.training.epochs", "2")
    with pytest.raises(UserError, match="figure5 learns from classifier, which is left out"):
        commands(sweeping, "--model.width", "4", without=["classifier"])


def test_the_page_calls_a_sweep_one(sweeping, tmp_path):
    write_chain_page(tmp_path, plan(load_chain(str(sweeping)), [], tmp_path), Progress(tmp_path))
    data = re.search(r'id="data">(.*?)</script>', (tmp_path / "index.html").read_text(), re.DOTALL)[1]
    assert [stage["kind"] for stage in json.loads(data)["stages"]] == ["classifier", "sweep"]


def test_a_sweep_is_repeated_with_settings_that_its_run_has_noted(sweeping):
    def sweep(*words: str):
        return plan(load_chain(str(sweeping)), group(words), Path("W"))[-1].recipe

    assert sweep() == sweep("--limit", "8") == sweep("--data.root", "elsewhere")
    # The parameters of the network may come to the same, its maps do not.
    assert sweep() != sweep("--classifier.inference.scales", "1")


@pytest.mark.parametrize(
    ("stages", "line"),
    [
        ('Stage("a", "classifier.py", sweeps=True)', "the stage 'a' sweeps, and takes no stage"),
        ('Stage("trial", "classifier.py")', "a stage cannot be called 'trial'"),
        ('Stage("a", "irn.py", takes="b"), Stage("b", "classifier.py")', "takes 'b', which is not before it"),
        ('Stage("a", "irn.py"), Stage("b", "irn.py", takes="a", sweeps=True)', "a classifier, which a is not"),
    ],
)
def test_a_chain_that_cannot_be_is_said_to_be(program, chain, tmp_path, stages, line):
    (chain.parent / "own.py").write_text(
        f"from lpcam_jax.chain.recipe import Chain, Stage\ndef get_chain(): return Chain(({stages},))"
    )
    refused = program("lpcam_jax.__main__", "chain", chain.parent / "own.py", "--workdir", tmp_path / "W", "--dry-run")
    assert_one_line_error(refused, f".*{re.escape(line)}")


CHAINS = sorted(file for file in REPOSITORY.glob("configs/**/*.py") if "def get_chain" in file.read_text())


@pytest.mark.parametrize("file", CHAINS, ids=lambda file: file.stem)
def test_every_chain_of_the_repository_can_be_planned(program, tmp_path, file):
    shown = program("lpcam_jax.__main__", "chain", file, "--workdir", tmp_path / "W", "--dry-run")
    assert shown.code == 0, shown.err
    assert "/train" in shown.out
    assert not (tmp_path / "W").exists()


def test_every_number_of_the_paper_has_its_stage():
    for data in ("voc12", "coco14"):
        chain = Chain(stages_of(data), REPOSITORY / "configs" / "paper")
        names = chain.names()
        assert {stage for entry in ENTRIES if entry.data == data for stage in entry.stages} <= {*names}
        # And a stage after those it learns from.
        assert [stage.name for stage in chain.stages if stage.takes and stage.takes not in names] == []
        plan(chain, [], Path("W"))


def test_the_documented_table_is_what_the_command_prints(program):
    printed = program("lpcam_jax.__main__", "paper").out
    assert printed.strip() in (REPOSITORY / "docs" / "paper.md").read_text()


def test_pseudo_masks_without_saliency_are_not_edams(tmp_path, tiny_runs):
    results = tmp_path / "classifier" / "results"
    shutil.copytree(tiny_runs.results("classifier").directory, results)
    entry = next(entry for entry in ENTRIES if entry.saliency)
    assert found(entry, tmp_path) == (None, None)
    metrics = json.loads((results / "metrics.json").read_text())
    metrics["protocol"]["saliency"] = {"network": "U2-Net"}
    (results / "metrics.json").write_text(json.dumps(metrics))
    assert found(entry, tmp_path) == (None, pytest.approx(100 * metrics["pseudo_masks"]["miou"]))


DAMAGED = [
    "null",
    "[]",
    '{"scores": [], "settings": [], "protocol": []}',
    '{"scores": {"lpcam": {"best": {"miou": "x"}}}, "settings": {"mu_f": null}, "protocol": {"data": 3}}',
    '{"scores": {"miou": null, "lpcam": {"best": {"miou": 0.5}}}, "settings": {"mu_f": [{"value": 1, "seeds": []}]}}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_scores_are_empty_cells(program, tmp_path, text):
    (tmp_path / "chain.json").write_text("{}")
    for stage, name in (("classifier", "metrics"), ("figure5", "sweep"), ("edam", "metrics")):
        (tmp_path / stage / "results").mkdir(parents=True)
        (tmp_path / stage / "results" / f"{name}.json").write_text(text)
    printed = program("lpcam_jax.__main__", "paper", "--results", tmp_path, "--data", "voc12")
    assert printed.code == 0, printed.err
    assert "| 1 | CAM | 26.5 | 26.2 | 48.8 | 65.0 | 65.2 |\n|  | CAM, ours |  |  |  |  |  |" in printed.out
    assert "nan" not in printed.out


def test_results_of_another_data_set_are_refused(program, tmp_path, tiny_runs):
    shutil.copytree(tiny_runs.run("classifier").directory, tmp_path / "classifier" / "run")
    (tmp_path / "chain.json").write_text("{}")
    refused = program("lpcam_jax.__main__", "paper", "--table", "1", "--results", tmp_path)
    assert_one_line_error(refused, r".* is not of VOC 2012: .*config.json is of shapes\.")


def test_a_figure_that_is_of_one_data_set_is_not_left_out_in_silence(program):
    refused = program("lpcam_jax.__main__", "paper", "--table", "2", "--figure", "5", "--data", "coco14")
    assert_one_line_error(refused, ".*have nothing on COCO 2014")


def test_one_row_needs_only_what_it_builds_on():
    chain = Chain(stages_of("voc12"), REPOSITORY / "configs" / "paper").only(["amn_lpcam_irn_deeplabv2"])
    assert chain.names() == ["classifier", "amn_lpcam", "amn_lpcam_irn", "amn_lpcam_irn_deeplabv2"]
    with pytest.raises(UserError, match="--only edam: the stages of this chain are"):
        chain.only(["edam"])


def test_a_mask_of_the_same_size_that_was_corrected_is_another_data_set(tmp_path):
    mask, workdir = tmp_path / "data" / "masks" / "a.png", tmp_path / "W"
    digests = set()
    for value in (1, 2):
        write_mask(mask, [[0, value], [0, 0]])
        (tmp_path / "data" / "obj.names").write_text("cat\ndog\n" if value == 1 else "dog\ncat\n")
        dataset_digest.cache_clear()
        digests.add(dataset_digest(str(tmp_path / "data"), workdir))
    (tmp_path / "data" / "obj.names").write_text("cat\ndog\n")
    dataset_digest.cache_clear()
    digests.add(dataset_digest(str(tmp_path / "data"), workdir))
    assert len(digests) == 3


def test_another_data_set_sets_aside_what_another_model_made(chain, tmp_path, tiny_runs):
    workdir, data = tmp_path / "W", tmp_path / "data"
    data.mkdir()
    (data / "labels.csv").write_text("name,labels\n")
    steps = plan(load_chain(str(chain)).only(["classifier"]), group(["--data.root", str(data)]), workdir)
    progress = Progress(workdir)
    shutil.copytree(tiny_runs.run("classifier").directory, workdir / "classifier" / "run")
    for step in steps:
        progress.begin(step, steps)
        progress.end(step, finished=True, seconds=1)
    assert all(verdict.finished for verdict in progress.verdicts(steps).values())

    dataset_digest.cache_clear()  # as in the next process
    (data / "labels.csv").write_text("name,labels\ncat.jpg,cat\n")
    train, apply = progress.verdicts(steps).values()
    assert (train.finished, train.aside) == (False, True)
    # The classifier is trained again, and is another: infer.py would refuse to go on in its folder.
    (workdir / "classifier" / "run" / "prototypes.npz").write_bytes(b"others")
    progress.begin(steps[0], steps)
    progress.end(steps[0], finished=True, seconds=1)
    train, apply = progress.verdicts(steps).values()
    assert train.finished
    assert (apply.finished, apply.aside, apply.again) == (False, True, "classifier/train is another")


def test_the_page_shows_a_picture_through_all_stages(driver, chain, tmp_path, tiny_runs):
    workdir = tmp_path / "W"
    for stage, kind in (("classifier", "classifier"), ("irn", "irn"), ("network", "segmentation")):
        shutil.copytree(tiny_runs.results(kind).directory, workdir / stage / "results")
    steps, progress = plan(load_chain(str(chain)).chosen(), [], workdir), Progress(workdir)
    write_chain_page(workdir, steps, progress)
    driver.get_log("browser")
    browser = Browser(driver, workdir)
    browser.load()
    assert "seeds of LPCAM" not in driver.find_element("css selector", "#stages").text, "of other settings, maybe"
    for step in steps:
        progress.begin(step, steps)
        progress.end(step, finished=True, seconds=1)
    write_chain_page(workdir, steps, progress)
    browser.load()
    assert [card.text for card in driver.find_elements("css selector", "#stages h3")] == [
        "classifier",
        "irn",
        "network",
    ]
    assert "seeds of LPCAM" in driver.find_element("css selector", "#stages").text
    first = driver.find_element("id", "picture").get_property("value")
    driver.find_element("id", "after").click()
    assert driver.find_element("id", "picture").get_property("value") != first
    browser.until("[...document.querySelectorAll('#rows img')].filter((one) => one.naturalWidth).length", 3)
    links = driver.find_elements("css selector", ".links a")
    assert len(links) == 4
    assert all(link.get_attribute("href").startswith(workdir.as_uri()) for link in links)
    assert driver.get_log("browser") == []


def outcome(results: Path) -> dict[str, bytes]:
    """The maps and masks in a folder of results, file by file."""
    files = sorted(results.glob("*/*.npz")) + sorted(results.glob("*masks/*.png"))
    assert files
    return {str(file.relative_to(results)): file.read_bytes() for file in files}


@pytest.mark.rest
@pytest.mark.minutes
def test_a_chain_is_continued_and_repeats_only_what_has_changed(
    start_program, program, chain, tmp_path, tiny_runs, pytestconfig
):
    """`--kills 20` kills it twenty times, at any moment."""
    workdir, rng = tmp_path / "W", np.random.default_rng(0)

    def command(*words):
        return ("-m", "lpcam_jax", "chain", chain, "--workdir", workdir, "--without", "irn", *words)

    def finish(*words) -> str:
        out, err = (process := start_program(*command(*words))).communicate()
        assert process.returncode == 0, err
        return re.sub(" +", " ", out)

    def done() -> dict:
        return json.loads((workdir / "chain.json").read_text())["steps"]

    # Killed in every step; what has ended is not done again.
    for life in range(max(pytestconfig.getoption("--kills") // 4, 1)):
        shutil.rmtree(workdir, ignore_errors=True)
        for step in ("classifier/train", "classifier/apply", "network/train", "network/apply"):
            process = start_program(*command())
            for line in process.stdout:
                if f"] {step}: " in line:
                    break
            time.sleep(rng.uniform(0, 10) if life else 0.5)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert life or not done()[step]["finished"]
        said = finish()
        assert life or "classifier/train finished" in said
        assert life or "network/apply to be continued" in said
        for stage, kind in (("classifier", "classifier"), ("network", "segmentation")):
            assert outcome(workdir / stage / "results") == outcome(tiny_runs.results(kind).directory)
    page = (workdir / "index.html").read_text()
    assert "4 of 4 steps are finished." in page
    assert "not finished" not in page

    # Once more: nothing is left to do.
    before = done()
    assert "] " not in finish()
    assert done() == before

    # Another setting of the network's: the classifier stays as it is.
    said = finish("--network.training.steps", "4")
    assert "network/train again: --training.steps 4; what it made is moved to replaced/" in said
    assert "] network/apply: " in said
    assert "] classifier/" not in said
    assert {key for key, step in done().items() if step != before[key]} == {"network/train", "network/apply"}
    assert (workdir / "replaced" / "network_train_1" / "config.json").exists()

    # Another setting of the classifier's inference: it is not trained again, but what learns from its maps is.
    words = command("--network.training.steps", "4", "--classifier.inference.background", "0.5", "--dry-run")
    shown = re.sub(" +", " ", program("lpcam_jax.__main__", *words[2:]).out)
    assert "classifier/train again: --inference.background 0.5\n" in shown
    assert "classifier/apply again: unless classifier/train comes to the same" in shown
    assert "network/train again: unless classifier/apply comes to the same" in shown


@pytest.mark.rest
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_chain_that_is_asked_to_stop_waits_for_what_its_step_saves(start_program, chain, tmp_path, number, code):
    """Twice at once, as by a terminal and a parent, is one wish."""
    never = ("--classifier.training.epochs", 10**4, "--classifier.training.checkpoint-every", 10**5)
    process = start_program("-m", "lpcam_jax", "chain", chain, "--workdir", tmp_path / "W", *never)
    run = tmp_path / "W" / "classifier" / "run"
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.send_signal(number)
    _, err = process.communicate(timeout=HANGS)
    assert process.returncode == code, err
    assert "stopped; the same command continues" in err
    assert len(Run.open(run).steps()) == 1
    assert "classifier/train" in (tmp_path / "W" / "chain.json").read_text()
