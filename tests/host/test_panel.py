"""The live curve on the training node, on the real canvas."""

from __future__ import annotations

_GRAPH = {"last_node_id": 7, "last_link_id": 0, "links": [], "version": 0.4, "nodes": [
    {"id": 7, "type": "LikenessTrain", "pos": [100, 100], "size": [320, 400], "flags": {},
     "order": 0, "mode": 0, "inputs": [], "outputs": [], "properties": {}}]}
_TELL = """async told => {
    const {api} = await import('/scripts/api.js')
    for (const detail of told)
        api.dispatchEvent(new CustomEvent('likeness.train', {detail}))
    const node = window.app.graph.getNodeById(7)
    const run = node.likenessRun
    const canvas = new OffscreenCanvas(node.size[0], node.size[1])
    const ctx = canvas.getContext('2d')
    const texts = []
    const fill = ctx.fillText.bind(ctx)
    ctx.fillText = (text, x, y, ...rest) => {
        texts.push({text, y, end: x + ctx.measureText(text).width})
        fill(text, x, y, ...rest)
    }
    node.onDrawForeground(ctx)
    const pixels = ctx.getImageData(0, 0, canvas.width, canvas.height).data
    const drawn = colour => {
        let count = 0
        for (let at = 0; at < pixels.length; at += 4)
            if (colour.every((value, part) => Math.abs(pixels[at + part] - value) < 30)
                && pixels[at + 3] > 128) count++
        return count
    }
    return {losses: run?.losses.length ?? 0, looks: run?.looks.length ?? 0, step: run?.step,
            plan: run?.plan, texts, height: node.size[1],
            blue: drawn([111, 155, 216]), green: drawn([79, 191, 120])}
}"""


def _step(step: int, loss: float) -> dict:
    return {"node": "7", "name": "ann", "steps": 100, "step": step, "loss": loss}


def _load(page) -> int:
    page.evaluate("async graph => await window.app.loadGraphData(graph)", _GRAPH)
    return page.evaluate("window.app.graph.getNodeById(7).size[1]")


def test_the_training_node_draws_loss_and_likeness_as_they_come(page):
    height = _load(page)
    seen = page.evaluate(_TELL, [_step(step, 1.0 / step) for step in range(1, 50)])
    assert seen["losses"] == 49 and seen["step"] == 49 and seen["height"] > height
    assert seen["blue"] > 100 and seen["green"] == 0
    looks = [{"node": "7", "name": "ann", "steps": 100, "look": {"step": step, "likeness": value}}
             for step, value in ((20, 0.4), (40, 0.6), (45, None))]
    seen = page.evaluate(_TELL, looks)
    assert seen["looks"] == 2 and seen["green"] > 20


def test_the_memory_plan_stands_on_the_node_until_the_first_step(page):
    _load(page)
    text = "Training takes about 5.1 GB of 24.0 GB."
    told = {"node": "7", "name": "ann", "steps": 100, "plan": {"text": text, "bytes": {}}}
    seen = page.evaluate(_TELL, [_step(9, 1.0), told])
    assert (seen["plan"], seen["step"], seen["losses"]) == (text, 0, 0)
    seen = page.evaluate(_TELL, [_step(1, 1.0)])
    assert seen["step"] == 1 and seen["losses"] == 1


def test_a_long_plan_is_read_in_lines_as_wide_as_the_node(page):
    _load(page)
    text = ("Training takes about 31.4 GB of 24.0 GB: weights 22.2 GB, activations 6.1 GB, text "
            "encoders 1.2 GB, decoding 1.0 GB, optimizer 0.6 GB, adapters 0.3 GB; frozen weights "
            "that find no room are brought in as they are needed.")
    told = {"node": "7", "name": "ann", "steps": 100, "plan": {"text": text, "bytes": {}}}
    seen = page.evaluate(_TELL, [told])
    lines = seen["texts"]
    assert " ".join(line["text"] for line in lines) == text
    assert all(line["end"] <= 320 and line["y"] < seen["height"] for line in lines)
    between = [after["y"] - line["y"] for line, after in zip(lines, lines[1:], strict=False)]
    assert between and min(between) >= 11


def test_a_second_run_starts_a_new_curve_and_other_nodes_are_left_alone(page):
    _load(page)
    page.evaluate(_TELL, [_step(step, 1.0) for step in range(1, 30)])
    seen = page.evaluate(_TELL, [_step(1, 0.5), {**_step(2, 0.5), "node": "8"}])
    assert seen["losses"] == 1 and seen["step"] == 1


def test_a_long_run_is_thinned_out(page):
    _load(page)
    told = [{**_step(step, 1.0), "steps": 5000} for step in range(1, 2001)]
    seen = page.evaluate(_TELL, told)
    assert 100 < seen["losses"] <= 600 and seen["step"] == 2000
