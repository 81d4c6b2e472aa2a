"""Draw the pages' diagrams for the site: ``python3 tests --diagrams``, after a change in one of them.

GitHub draws what is in a page's block of Mermaid. The site shows a drawing that was made before, so that no browser has
to fetch a program of three megabytes: docs/pictures has one for each block, by a digest of it. Needs npm and Chromium.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.append(str(PROJECT))

from links import MERMAID, PICTURES, picture  # noqa: E402  # it lies beside pyproject.toml, for hatchling

VERSION = "12.3.0"
# Of the theme, by the color that is put in here: what the site has for it, in light and in dark.
COLORS = {
    "#010101": "var(--md-default-fg-color)",
    "#020202": "var(--md-default-fg-color--light)",
    "#030303": "var(--md-code-bg-color)",
    "#040404": "var(--md-default-bg-color)",
    "#050505": "var(--md-primary-fg-color)",
}
TEXT, LINE, FILL, PAPER, EDGE = COLORS
THEME = {
    "darkMode": False,
    "fontFamily": "sans-serif",
    "fontSize": "14px",
    **dict.fromkeys(("primaryColor", "mainBkg", "actorBkg", "noteBkgColor", "secondaryColor", "tertiaryColor"), FILL),
    **dict.fromkeys(("background", "clusterBkg", "edgeLabelBackground", "labelBoxBkgColor"), PAPER),
    **dict.fromkeys(("primaryBorderColor", "nodeBorder", "actorBorder", "clusterBorder", "noteBorderColor"), EDGE),
    **dict.fromkeys(("secondaryBorderColor", "tertiaryBorderColor", "labelBoxBorderColor"), EDGE),
    **dict.fromkeys(("lineColor", "signalColor", "actorLineColor", "arrowheadColor", "defaultLinkColor"), LINE),
    **dict.fromkeys(("primaryTextColor", "textColor", "nodeTextColor", "titleColor", "actorTextColor"), TEXT),
    **dict.fromkeys(("secondaryTextColor", "tertiaryTextColor", "signalTextColor", "noteTextColor"), TEXT),
    **dict.fromkeys(("labelTextColor", "loopTextColor"), TEXT),
}
PAGE = """<!doctype html><meta charset="utf-8"><body><script src="{script}"></script><script type="module">
mermaid.initialize({{startOnLoad: false, theme: "base", themeVariables: {theme}, htmlLabels: false,
  flowchart: {{htmlLabels: false, useMaxWidth: true, wrappingWidth: 240}}, deterministicIds: true}});
const drawn = {{}};
for (const [name, source] of Object.entries({sources}))
  drawn[name] = (await mermaid.render("d" + name, source)).svg;
document.body.innerHTML = "";
const result = document.createElement("pre");
result.textContent = JSON.stringify(drawn);
document.body.append(result);
</script>"""


def sources() -> dict[str, str]:
    """The blocks of Mermaid of all pages, each by the name of its picture."""
    pages = [*PROJECT.glob("*.md"), *sorted(PROJECT.glob("docs/**/*.md"))]
    return {picture(source): source for page in pages for source in MERMAID.findall(page.read_text())}


def _cleaned(svg: str) -> str:
    """*svg* with the site's colors, and without what nobody sees."""
    for color, shown in COLORS.items():
        svg = svg.replace(color, shown)
    svg = re.sub(r' data-[\w-]+="[^"]*"', "", svg)
    return " ".join(re.sub(r"(\d\.\d)\d+", r"\1", svg).split()) + "\n"


def main() -> None:
    """Draw what is not drawn yet, and remove what no page has any more."""
    wanted = sources()
    directory = Path(PICTURES)
    directory.mkdir(exist_ok=True)
    for drawing in directory.glob("diagram-*.svg"):
        if drawing.name not in wanted:
            drawing.unlink()
    missing = {name: source for name, source in wanted.items() if not (directory / name).exists()}
    if not missing:
        return
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or sys.exit("there is no Chromium")
    with tempfile.TemporaryDirectory() as temporary:
        npm = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", temporary, f"mermaid@{VERSION}"]
        subprocess.run(npm, check=True)
        script = Path(temporary, "node_modules", "mermaid", "dist", "mermaid.min.js")
        page = Path(temporary, "page.html")
        stems = {name.removesuffix(".svg"): source for name, source in missing.items()}
        page.write_text(PAGE.format(script=script.as_uri(), theme=json.dumps(THEME), sources=json.dumps(stems)))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
        done = subprocess.run(
            [chromium, *options, page.as_uri()],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
    found = re.search(r"<pre>(.*)</pre>", done.stdout, re.DOTALL)
    for stem, drawing in json.loads(unescape(found[1]) if found else sys.exit(done.stdout)).items():
        (directory / f"{stem}.svg").write_text(_cleaned(drawing))
        print(directory / f"{stem}.svg")


if __name__ == "__main__":
    main()
