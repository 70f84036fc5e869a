// Draws a run's loss and likeness on its Likeness Train node while it trains.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

const NODE = "LikenessTrain"
const EVENT = "likeness.train"
const HEIGHT = 120
const MARGIN = 12
const LINE = 14
const INSET = 6
const POINTS = 600 // a longer run is thinned out, so that drawing stays cheap
const COLOURS = { loss: "#6f9bd8", likeness: "#4fbf78", text: "#c8ccd4", frame: "#3a3f48" }

function newRun() {
  return { losses: [], looks: [], step: 0, steps: 1, smooth: null, plan: "" }
}

// A tenth of the run long, as in the picture of the finished run; single losses say little.
function record(run, told) {
  run.steps = told.steps
  if (told.plan) {
    run.plan = told.plan.text
    return
  }
  if (told.look) {
    const likeness = told.look.likeness
    if (likeness !== null) run.looks.push([told.look.step, likeness])
    return
  }
  const keep = 1 - 1 / Math.max(1, Math.min(told.step, told.steps / 10))
  run.smooth = run.smooth === null ? told.loss : keep * run.smooth + (1 - keep) * told.loss
  run.step = told.step
  run.losses.push([told.step, run.smooth])
  if (run.losses.length > POINTS) run.losses = run.losses.filter((_, index) => index % 2 === 0)
}

function drawLine(ctx, points, steps, box, colour) {
  if (!points.length) return
  const values = points.map(([, value]) => value)
  const low = Math.min(...values)
  const span = Math.max(...values) - low || 1
  ctx.strokeStyle = ctx.fillStyle = colour
  ctx.lineWidth = 1.5
  ctx.beginPath()
  points.forEach(([step, value], index) => {
    const x = box.x + (step / steps) * box.width
    const y = box.y + box.height * (1 - (value - low) / span)
    if (index) ctx.lineTo(x, y)
    else ctx.moveTo(x, y)
    if (points.length < 40) ctx.fillRect(x - 1.5, y - 1.5, 3, 3)
  })
  ctx.stroke()
}

function wrap(ctx, text, width) {
  const lines = []
  for (const word of text.split(" ")) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word
    if (lines.length && ctx.measureText(longer).width <= width) lines[lines.length - 1] = longer
    else lines.push(word)
  }
  return lines
}

function draw(ctx, node, run) {
  const top = node.size[1] - HEIGHT
  const box = { x: MARGIN, y: top + 22, width: node.size[0] - 2 * MARGIN, height: HEIGHT - 32 }
  ctx.save()
  ctx.strokeStyle = COLOURS.frame
  ctx.strokeRect(box.x, box.y, box.width, box.height)
  drawLine(ctx, run.losses, run.steps, box, COLOURS.loss)
  drawLine(ctx, run.looks, run.steps, box, COLOURS.likeness)
  ctx.font = "11px sans-serif"
  ctx.fillStyle = COLOURS.text
  ctx.textAlign = "left"
  const loss = run.smooth === null ? "" : `  loss ${run.smooth.toFixed(4)}`
  const last = run.looks.at(-1)
  const likeness = last ? `  likeness ${last[1].toFixed(3)}` : ""
  if (run.step) {
    const line = `step ${run.step} of ${run.steps}${loss}${likeness}`
    ctx.fillText(line, box.x, top + 15, box.width)
  } else {
    // There is no curve yet, so the plan has its room.
    const lines = wrap(ctx, run.plan, box.width - 2 * INSET)
    const drop = Math.min(LINE, (box.height - INSET) / lines.length)
    lines.forEach((line, index) => ctx.fillText(line, box.x + INSET, box.y + drop * (index + 1)))
  }
  ctx.restore()
}

function onTold(event) {
  const told = event.detail
  const node = app.graph.getNodeById(Number(told.node)) ?? app.graph.getNodeById(told.node)
  if (node?.type !== NODE) return
  const begins = !node.likenessRun || told.plan || told.step < node.likenessRun.step
  if (begins) node.likenessRun = newRun()
  if (!node.likenessRoom) {
    node.likenessRoom = true
    node.setSize([node.size[0], node.size[1] + HEIGHT])
  }
  record(node.likenessRun, told)
  node.setDirtyCanvas(true)
}

app.registerExtension({
  name: "likeness.training_panel",
  setup() {
    api.addEventListener(EVENT, onTold)
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return
    const before = nodeType.prototype.onDrawForeground
    nodeType.prototype.onDrawForeground = function (ctx, ...rest) {
      before?.call(this, ctx, ...rest)
      if (this.likenessRun && !this.flags?.collapsed) draw(ctx, this, this.likenessRun)
    }
  },
})
