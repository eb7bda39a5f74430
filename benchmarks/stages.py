"""Which contests there are, and what each should show."""

from benchmarks.contest import Contest, Entry, Goal

STAGES = ("kernel", "kmeans", "network", "inference", "start-up", "scaling")
SHORT_STAGES = ("kernel", "kmeans")
AS_FAST = Goal("≥ 1.0", least=1.0)


def contests(stages: tuple[str, ...], *, short: bool = False) -> list[Contest]:
    """The contests of these stages, in order; short: those of CI."""
    made = {
        "kernel": _kernel,
        "kmeans": _kmeans,
        "network": _network,
        "inference": _inference,
        "start-up": _start_up,
        "scaling": _scaling,
    }
    return [contest for stage in stages for contest in made[stage](short=short)]


def _kernel(*, short: bool) -> list[Contest]:
    def one(blocks):
        """On eight blocks the loop takes a minute or more, and says nothing else."""
        options = {"blocks": blocks}
        peer = "benchmarks.peers.kernel"
        loop = Entry(
            "the reference's loop over prototypes, torch",
            f"{peer}:loop",
            options,
            Goal("≥ 1,000", least=1000),
            turns=1,
        )
        entries = [
            Entry("LPCAM, directions made once: ours", "benchmarks.ours.kernel:ours", {**options, "made": True}),
            Entry("LPCAM, from prototypes: ours", "benchmarks.ours.kernel:ours", {**options, "made": False}),
            Entry("plain CAM: ours", "benchmarks.ours.kernel:plain", options, Goal("ours ≤ 1.1 CAM", least=1 / 1.1)),
            Entry("plain CAM: torch", f"{peer}:plain", options),
            Entry("LPCAM, directions made once: torch", f"{peer}:collapsed", options),
            Entry("LPCAM, one product with all prototypes: torch", f"{peer}:product", options),
        ]
        blocks_text = "one block" if blocks == 1 else f"{blocks} blocks"
        return Contest(
            "kernel",
            f"LPCAM of {blocks_text} of 32x32x2048 features, 20 classes, 12 + 12 prototypes",
            (*entries, loop) if blocks == 1 else tuple(entries),
            turns=25,
        )

    return [one(1)] if short else [one(1), one(8)]


def _kmeans(*, short: bool) -> list[Contest]:
    peer = "benchmarks.peers.clustering"
    contests = []
    for count, clusters in ((20_000, 12), (20_000, 20), (100_000, 12), (100_000, 20)):
        if short and (count, clusters) != (20_000, 12):
            continue
        options = {"count": count, "clusters": clusters, "iterations": 10}
        entries = [
            Entry("ours", "benchmarks.ours.clustering:ours", options),
            Entry("faiss", f"{peer}:spherical_faiss", options, AS_FAST),
            Entry("scikit-learn, Lloyd (another objective)", f"{peer}:lloyd", options, turns=3, tolerance=0.02),
        ]
        if count == 20_000 and not short:
            ott = "benchmarks.peers.clustering_ott:cosine"
            entries.append(Entry("ott-jax, raw means of unit points", ott, options, turns=3, tolerance=0.02))
        contests.append(
            Contest(
                "kmeans",
                f"spherical k-means of {count:,} x 2048 points, K = {clusters}",
                tuple(entries),
                turns=7 if count == 20_000 else 5,
                per="iterations",
                goals={"extra memory, % of the points": Goal("< 15", most=15)},
            )
        )
    options = {"count": 20_000, "clusters": 12, "iterations": 10}
    contests.append(
        Contest(
            "kmeans",
            "cosine k-means with raw means, 20,000 x 2048 points, K = 12",
            (
                Entry("ours", "benchmarks.ours.clustering:ours", {**options, "update": "mean"}),
                Entry(
                    "kmeans_pytorch 0.3, what the reference uses",
                    "benchmarks.peers.clustering_torch:cosine",
                    options,
                    Goal("≥ 25", least=25),
                    turns=1 if short else 2,
                ),
            ),
            turns=7,
            per="iterations",
        )
    )
    if not short:
        own, options = "benchmarks.ours.clustering", {"count": 20_000, "clusters": 12}
        many = {**options, "iterations": 10}
        contests.append(
            Contest(
                "kmeans",
                "starts of k-means, in units of one iteration (20,000 x 2048 points, K = 12)",
                (
                    Entry("ten iterations from given centres", f"{own}:ours", many),
                    Entry("k-means++ start", f"{own}:plus_plus", options),
                    Entry("ten iterations from one start", f"{own}:restarts", {**many, "starts": 1}),
                    Entry("ten iterations from each of four starts", f"{own}:restarts", {**many, "starts": 4}),
                ),
                per="iterations",
                better="down",
            )
        )
    return contests


def _network(*, short: bool) -> list[Contest]:
    ways = {
        "eager": "torch, eager",
        "channels_last": "torch, channels last",
        "compiled": "torch, compiled, channels last",
    }

    def entries(what, options, goal, **more):
        peers = [
            Entry(name, f"benchmarks.peers.network:{what}", {**options, "how": how}, goal)
            for how, name in (ways | more).items()
        ]
        return (Entry("ours", f"benchmarks.ours.network:{what}", options), *peers)

    return [
        Contest(
            "network",
            "ResNet-50 at output stride 16, forward, two pictures of 512x512",
            entries(
                "forward", {"batch": 2, "side": 512}, AS_FAST, frozen="torch, compiled, channels last, weights frozen"
            ),
            turns=7,
            tolerance=1e-4,
        ),
        Contest(
            "network",
            "ResNet-50, a training step, two pictures of 256x256",
            entries("step", {"batch": 2, "side": 256}, Goal("≥ 0.9", least=0.9)),
            turns=7,
            tolerance=1e-4,
        ),
    ]


def _inference(*, short: bool) -> list[Contest]:
    options, torch = {"pictures": 40}, "benchmarks.peers.heatmaps:infer"
    return [
        Contest(
            "inference",
            "photographs to maps, ResNet-50, 40 photographs",
            (
                Entry("ours: infer.py", "benchmarks.ours.heatmaps:infer", options),
                Entry("torch script, eager", torch, {**options, "compiled": False}, AS_FAST),
                Entry("torch script, compiled", torch, {**options, "compiled": True}, AS_FAST),
            ),
            turns=1,
            tolerance=5e-3,
            note=(
                "Whole commands, with what they compile already in their caches: decoding, scales 1, 0.5, 1.5 and 2 "
                "with mirror images, maps as float16 in an npz. infer.py also writes overlays, seed masks and the "
                "gallery; the torch script does not."
            ),
        )
    ]


def _start_up(*, short: bool) -> list[Contest]:
    start = "benchmarks.ours.start_up:first_map"
    return [
        Contest(
            "start-up",
            "until the first heat map of infer.py, the embedded data set's network",
            (
                Entry("what was compiled is kept", start, {"cold": False}),
                Entry("nothing is compiled yet", start, {"cold": True}, turns=1),
            ),
            turns=3,
            better="",
        )
    ]


def _scaling(*, short: bool) -> list[Contest]:
    start = "benchmarks.ours.sampling:stage"
    return [
        Contest(
            "scaling",
            "sampling and clustering of small pictures",
            (
                Entry("200 pictures", start, {"pictures": 200}),
                Entry("50 pictures", start, {"pictures": 50}),
                Entry("800 pictures", start, {"pictures": 800}, Goal("≤ 4.4", most=4.4)),
            ),
            turns=3,
            better="",
        )
    ]
