"""The page: what it says, that every label is escaped, and what a browser makes of it."""

import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fit_files import TASK, results, run_card, with_metrics, write, write_sweep

from kisl_plugin.fit import fit_infusion_law, fit_results, write_report
from kisl_plugin.fit.collapse_points import CollapsePoint
from kisl_plugin.fit.figures import draw_laws
from kisl_plugin.fit.report import LawReport

SIZES = {137_000_000: 400.0, 300_000_000: 300.0, 562_000_000: 220.0, 1_050_000_000: 150.0}
HOSTILE = "<script>alert('1')</script>\"&amp;"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (360, 1000)


class Reader(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four sizes, a model that never falls, groups and a task with hostile names, a file without a card."""
    folder = tmp_path_factory.mktemp("page")
    for params, f_star in SIZES.items():
        write_sweep(folder / "in" / str(params), f_star, model={"params": params})
    write_sweep(folder / "in" / "more", 1e6, tokens=10_000_000_000)
    hostile = {f"{HOSTILE}{F}": {"frequency": F, "count": 100} for F in (0, 10, 20, 50, 100)}
    card = run_card(frequency=None, groups=hostile, tokens=7_000_000_000)
    data = with_metrics(results(card), **{f"acc_{name}": 0.5 for name in hostile})
    write(folder / "in" / HOSTILE.replace("/", "_") / "results_1.json", {**data, "model_name": HOSTILE})
    write(folder / "in" / HOSTILE.replace("/", "_") / "results_2.json", results(None))
    write(folder / "in" / ("x" * 150) / "results_3.json", results(None))
    write_report(fit_results([folder / "in"]), folder / "report")
    return folder / "report"


@pytest.fixture(scope="module")
def page(report: Path) -> Reader:
    return Reader((report / "index.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_but_itself(page: Reader) -> None:
    links = [attributes["href"] for attributes in page.all("a")]
    assert links
    assert all(link.startswith("#") for link in links)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link[1:] for link in links} <= ids
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in page.all("img"))
    assert not page.all("script") + page.all("link") + page.all("iframe")
    assert not re.search(r"url\(|@import", page.text)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy


def test_names_from_files_are_text_and_never_markup(page: Reader) -> None:
    assert HOSTILE in page.text
    assert HOSTILE.replace("/", "_") in page.text
    known = set("html head meta title style body header h1 h2 h3 h4 p nav ul li a main section figure img".split())
    known |= set("figcaption sup div table thead tbody tr th td code pre dl dt dd span".split())
    assert {name for name, _ in page.tags} <= known
    assert not [attribute for _, attributes in page.tags for attribute in attributes if attribute.startswith("on")]


def test_the_page_can_be_read_aloud(page: Reader) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    levels = [int(name[1]) for name, _ in page.tags if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(heading["scope"] in ("col", "row") for heading in page.all("th"))


def test_the_page_says_what_fit_json_holds(page: Reader, report: Path) -> None:
    found = json.loads((report / "fit.json").read_text())
    text = " ".join(page.text.split())
    for curve in found["curves"]:
        assert curve["status"] in text
        if curve["status"] == "ok":
            assert f"F* = {float(format(curve['f_star'], '.3g')):.0f} (95 % interval" in text
    for aside in found["set_aside"]:
        assert f"{aside['path']}: {aside['reason']}" in text
    assert len(page.all("img")) == 3 + len(found["curves"])
    assert [len(found["law"]["region"][name]) for name in ("alpha", "E", "A")] == [41] * 3
    assert found["laws"][-1]["region"] is None
    assert "4 of 6 models show a collapse point." in text
    for verdict in found["verdicts"]:
        assert verdict["sentence"] in text
    assert "arXiv:2509.19371" in text


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    write_sweep(tmp_path / "in", 200.0)
    found = fit_results([tmp_path / "in"])
    for name in ("once", "again"):
        write_report(found, tmp_path / name)
    for path in (tmp_path / "once").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_pdfs_carry_their_fonts_and_are_a_column_wide(report: Path) -> None:
    for path in report.glob("*.pdf"):
        content = path.read_bytes()
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        (width,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", content)
        assert float(width) == pytest.approx(3.4 * 72)


# A page may not run scripts, so another one looks into it: what sticks out, what was loaded, what was asked for
LOOKING = """<!doctype html><body style="margin:0"><iframe src="index.html" style="border:0;width:WIDTHpx;height:900px">
</iframe><script>
addEventListener('load', () => {
  const view = document.querySelector('iframe').contentWindow, page = view.document, root = page.documentElement
  const wide = [...page.body.querySelectorAll('*')].filter(one => !one.parentElement.closest('.scroll')
    && one.getBoundingClientRect().right > root.clientWidth + 1)
  document.body.textContent = JSON.stringify({
    page: root.scrollWidth, window: root.clientWidth, wide: wide.map(one => one.outerHTML.slice(0, 80)),
    broken: [...page.images].filter(one => !one.naturalWidth).length, images: page.images.length,
    asked: view.performance.getEntriesByType('resource').map(one => one.name.slice(0, 60))
      .filter(name => !name.startsWith('data:')) })
})</script>"""


@pytest.fixture(scope="module")
def server(report: Path) -> Iterator[tuple[str, list[str]]]:
    """The report on a port of this machine, and the paths that are asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(report))  # type: ignore[arg-type]

        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}", asked
        serving.shutdown()


def chromium(tmp_path: Path, *arguments: str) -> str:
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on this machine")
    offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", offline]
    command += [f"--user-data-dir={tmp_path}/profile", "--force-device-scale-factor=1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser_nothing_sticks_out_and_nothing_is_fetched(
    width: int, report: Path, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = server
    (report / f"looking{width}.html").write_text(LOOKING.replace("WIDTH", str(width)))
    asked.clear()
    try:
        dom = chromium(tmp_path, "--dump-dom", f"--window-size={width},900", f"{address}/looking{width}.html")
    finally:
        (report / f"looking{width}.html").unlink()
    found = json.loads(re.sub(r"<[^>]*>", "", dom[dom.index("{") : dom.rindex("}") + 1]))
    assert found["window"] == width
    assert found["page"] <= width
    assert found["wide"] == []
    assert found["images"] > 5
    assert found["broken"] == 0
    assert found["asked"] == []
    assert {path for path in asked if path != "/favicon.ico"} == {f"/looking{width}.html", "/index.html"}


def test_the_task_is_a_label_too(tmp_path: Path) -> None:
    task = f"{HOSTILE} $x^{{2$"
    write(tmp_path / "in" / "results_1.json", results(run_card(), task=task))
    write_report(fit_results([tmp_path / "in"], task=task), tmp_path / "report")
    page = Reader((tmp_path / "report" / "index.html").read_text(encoding="utf-8"))
    assert task in page.text
    assert not page.all("script")
    assert TASK not in page.text


def test_without_a_collapse_point_there_is_no_figure_of_the_law(tmp_path: Path) -> None:
    write(tmp_path / "in" / "results_1.json", results(run_card()))
    files = write_report(fit_results([tmp_path / "in"]), tmp_path / "report")
    assert not [file for file in files if file.stem == "law"]
    assert "No infusion law" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_the_names_of_24_models_do_not_overlap_in_the_figure_of_the_laws(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", results(run_card()))
    report = fit_results([tmp_path])
    sizes = np.geomspace(5e7, 5e9, 24).astype(int).tolist()
    points = [CollapsePoint(params=N, tokens=10**10, f_star=400 * (N / 1e9) ** -0.4) for N in sizes]
    law = fit_infusion_law([point.compute for point in points], [point.f_star for point in points])
    laws = (LawReport(tokens=10**10, points=tuple(points), law=law),)
    figure = draw_laws(replace(report, laws=laws))
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    assert len(boxes) >= 6
    assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])
