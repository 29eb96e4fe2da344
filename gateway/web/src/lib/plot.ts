/** One drawing of lines over time with uPlot. This module is loaded when the first graph is shown. */

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { labelOf, marksOf, stepOf } from './axis';
import { dragged, type Window } from './graph';
import type { Band } from './range';
import type { PastMark, Span } from './past-marks';
import type { Theme } from './plot-theme';
import { aloneOf } from './samples';
import { axisLabels, marksBetween } from './unit';

export interface Line {
  /** `null` is a gap; what is `undefined` has no value of its own, and the line goes on. */
  values: readonly (number | null | undefined)[];
  /** The number of its colour; absent: the accent. `quiet`: one of many. */
  color?: number | 'quiet';
  /** Half as strong. */
  faint?: boolean;
  /** The edge of the band: not drawn itself. */
  edge?: boolean;
  width?: number;
}

/** What a plot shows. All of it is replaced at once. */
export interface Shown {
  window: Window;
  at: readonly number[];
  lines: readonly Line[];
  /** The indices of the two lines that have a band between them. */
  band?: [number, number];
  axis: [number, number];
  uom: string;
  zones: readonly Band[];
  gaps: readonly Window[];
  states: readonly Span[];
  marks: readonly PastMark[];
}

export interface Handlers {
  /** The reader selected a window. */
  onwindow: (window: Window) => void;
  /** While the reader drags; `onwindow` follows. */
  ondrag: (window: Window) => void;
  onreset: () => void;
  /** The moment under the pointer, also of another plot of the group. */
  onmoment: (index: number | null, at: number | null) => void;
}

/** CSS pixels. */
const LEFT = 62;
const LEFT_SMALL = 54;
const BELOW = 36;
const BAR = 7;
const BAR_TOP = 4;
const TICK_SPACE = 70;
const SMALL = 480;
const DRAG = 4;
const NARROW = 3;
const WIDTH = 1.5;

/** How high the bar of a state is, as a share: the shape says it besides the colour. */
const HEIGHTS: Record<string, number> = { up: 0.35, ok: 0.35, pending: 0.2, unknown: 0.7, unreachable: 0.7, warning: 0.7, critical: 1, down: 1 };

export class Plot {
  private readonly plot: uPlot;
  private readonly zone = new Intl.DateTimeFormat().resolvedOptions().timeZone;
  private readonly stops: (() => void)[] = [];
  private theme: Theme;
  private shown: Shown;

  /** Plots of one `group` show the same moment under the pointer. */
  constructor(box: HTMLElement, shown: Shown, theme: Theme, group: string, private readonly handlers: Handlers) {
    this.shown = shown;
    this.theme = theme;
    this.plot = new uPlot(this.options(box.clientWidth, box.clientHeight, group), this.data(), box);
    this.plot.root.setAttribute('aria-hidden', 'true');
    this.listen();
  }

  show(shown: Shown): void {
    this.shown = shown;
    const { window, axis } = shown;
    shown.lines.forEach((line, i) => {
      const series = this.plot.series[i + 1];
      if (series && !line.edge) series.width = line.width ?? WIDTH;
    });
    this.plot.batch(() => {
      this.plot.setData(this.data(), false);
      this.plot.setScale('x', { min: window.from, max: window.to });
      this.plot.setScale('y', { min: axis[0], max: axis[1] });
    });
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    this.plot.redraw(false);
  }

  resize(width: number, height: number): void {
    if (width > 0 && height > 0 && (width !== this.plot.width || height !== this.plot.height)) this.plot.setSize({ width, height });
  }

  get canvas(): HTMLCanvasElement {
    return this.plot.ctx.canvas;
  }

  destroy(): void {
    this.stops.forEach((stop) => stop());
    this.plot.destroy();
  }

  private data(): uPlot.AlignedData {
    return [this.shown.at as number[], ...this.shown.lines.map(({ values }) => values as (number | null | undefined)[])];
  }

  private options(width: number, height: number, group: string): uPlot.Options {
    const { shown } = this;
    const font = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
    const grid = { stroke: () => this.theme.line, width: 1 };
    return {
      width,
      height,
      legend: { show: false },
      padding: [8, 12, 0, 0],
      series: [{}, ...shown.lines.map((line, i) => this.series(line, i))],
      ...(shown.band ? { bands: [{ series: shown.band, fill: () => this.theme.band } as unknown as uPlot.Band] } : {}),
      scales: {
        x: { time: false, auto: false, range: () => [this.shown.window.from, this.shown.window.to] },
        y: { auto: false, range: () => this.shown.axis },
      },
      axes: [
        {
          font, grid, stroke: () => this.theme.soft, ticks: { show: false }, size: BELOW, gap: BAR + BAR_TOP + 3,
          splits: (_, __, min, max) => this.ticks(min, max),
          values: (u, splits) => splits.map((at) => labelOf(this.zone, at, this.step(u.scales.x!.min!, u.scales.x!.max!))),
        },
        {
          font, grid, stroke: () => this.theme.soft, ticks: { show: false }, size: width < SMALL ? LEFT_SMALL : LEFT, gap: 6, space: 27,
          splits: (_, __, min, max, step) => marksBetween(min, max, step, this.shown.uom),
          values: (_, splits) => axisLabels(splits, this.shown.uom),
        },
      ],
      cursor: {
        y: false,
        points: { size: 6, width: 0, fill: (_, i) => this.color(this.shown.lines[i - 1]), show: true },
        drag: { x: true, y: false, setScale: false, dist: DRAG },
        sync: { key: group, setSeries: false, scales: ['x', null], filters: { pub: (kind) => kind === 'mousemove' || kind === 'mouseleave' } },
        bind: {
          // With Shift the pointer moves the window; a touch does so too.
          mousedown: (_, __, handler) => (event) => (event.button === 0 && !event.shiftKey ? handler(event) : null),
          dblclick: () => () => {
            this.handlers.onreset();
            return null;
          },
        },
      },
      hooks: {
        setSelect: [(u) => this.select(u)],
        setCursor: [(u) => this.point(u)],
        drawClear: [(u) => this.under(u)],
        drawAxes: [(u) => this.limits(u)],
        draw: [(u) => this.above(u)],
      },
    };
  }

  private series(line: Line, index: number): uPlot.Series {
    if (line.edge) return { stroke: 'transparent', width: 0, points: { show: false } };
    return {
      stroke: () => this.color(this.shown.lines[index]),
      width: line.width ?? WIDTH,
      // A value between two gaps has no line: it is drawn as a point.
      points: { show: true, size: 4, width: 0, fill: () => this.color(this.shown.lines[index]), filter: () => this.alone(index) },
    };
  }

  private color(line: Line | undefined): string {
    if (!line || line.edge) return 'transparent';
    if (line.color === 'quiet') return this.theme.quiet;
    const colors = line.faint ? this.theme.faint : this.theme.lines;
    return line.color === undefined ? this.theme.accent : colors[line.color % colors.length]!;
  }

  private alone(index: number): number[] {
    return aloneOf(this.shown.lines[index]?.values ?? []);
  }

  private step(min: number, max: number): ReturnType<typeof stepOf> {
    return stepOf(min, max, Math.max(2, Math.floor((this.plot.width - LEFT) / TICK_SPACE)));
  }

  private ticks(min: number, max: number): number[] {
    return marksOf(this.zone, min, max, this.step(min, max));
  }

  private select(u: uPlot): void {
    const { left, width } = u.select;
    if (width < DRAG) return;
    const window = { from: Math.round(u.posToVal(left, 'x')), to: Math.round(u.posToVal(left + width, 'x')) };
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.handlers.onwindow(window);
  }

  private point(u: uPlot): void {
    const { idx, left } = u.cursor;
    const outside = idx === null || idx === undefined || left === undefined || left < 0;
    this.handlers.onmoment(outside ? null : idx, outside ? null : u.posToVal(left, 'x'));
  }

  /** Behind the lines: limits, gaps, and what was planned or booked. */
  private under(u: uPlot): void {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const { from, to } of this.shown.gaps) this.hatch(u, from, to);
    for (const mark of this.shown.marks) {
      if (mark.kind === 'downtime') this.fill(u, mark.from, mark.to, this.theme.downtime);
    }
    for (const zone of this.shown.zones) {
      if (zone.zone !== 'warning' && zone.zone !== 'critical') continue;
      const [top, bottom] = [u.valToPos(zone.to, 'y', true), u.valToPos(zone.from, 'y', true)];
      ctx.fillStyle = zone.zone === 'critical' ? this.theme.criticalZone : this.theme.warningZone;
      ctx.fillRect(bbox.left, top, bbox.width, bottom - top);
    }
    ctx.restore();
  }

  /** Above the grid, and below the lines: the limits. A critical one is solid, a warning is dashed. */
  private limits(u: uPlot): void {
    const { ctx, bbox } = u;
    const { zones } = this.shown;
    ctx.save();
    ctx.lineWidth = uPlot.pxRatio;
    zones.slice(0, -1).forEach((zone, i) => {
      const critical = zone.zone === 'critical' || zones[i + 1]!.zone === 'critical';
      const y = Math.round(u.valToPos(zone.to, 'y', true)) + 0.5;
      ctx.strokeStyle = critical ? this.theme.critical : this.theme.warning;
      ctx.setLineDash(critical ? [] : [5 * uPlot.pxRatio, 4 * uPlot.pxRatio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    });
    ctx.restore();
  }

  /** What is too narrow to be seen as a span has its place only above the graphs. */
  private fill(u: uPlot, from: number, to: number, color: string): void {
    const [left, right] = [u.valToPos(from, 'x', true), u.valToPos(to, 'x', true)];
    if (right - left < NARROW * uPlot.pxRatio) return;
    u.ctx.fillStyle = color;
    u.ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height);
  }

  /** Thin slanted lines: nothing is known. */
  private hatch(u: uPlot, from: number, to: number): void {
    const { ctx, bbox } = u;
    const [left, right] = [u.valToPos(from, 'x', true), u.valToPos(to, 'x', true)];
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, bbox.top, Math.max(right - left, 2 * uPlot.pxRatio), bbox.height);
    ctx.clip();
    ctx.strokeStyle = this.theme.gap;
    ctx.lineWidth = uPlot.pxRatio;
    const space = 7 * uPlot.pxRatio;
    ctx.beginPath();
    // The slant begins at a fixed grid, so that it stands still while the window moves.
    for (let x = Math.floor((left - bbox.height) / space) * space; x < right; x += space) {
      ctx.moveTo(x, bbox.top + bbox.height);
      ctx.lineTo(x + bbox.height, bbox.top);
    }
    ctx.stroke();
    ctx.restore();
  }

  /** Above the lines: rentals along the upper edge, begins of incidents, events, and the bar of states below. */
  private above(u: uPlot): void {
    const { ctx, bbox } = u;
    const px = uPlot.pxRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, 0, bbox.width, u.height * px);
    ctx.clip();
    for (const mark of this.shown.marks) {
      const [left, right] = [u.valToPos(mark.from, 'x', true), u.valToPos(mark.to, 'x', true)];
      if (mark.kind === 'rental') this.rect(u, left, bbox.top - 4 * px, right - left, 3 * px, this.theme.rental);
      if (mark.kind === 'incident') {
        this.rect(u, left, bbox.top, px, bbox.height, this.theme.incident);
        this.rect(u, left, bbox.top, right - left, 2 * px, this.theme.incident);
      }
      if (mark.kind === 'event') this.triangle(u, left);
    }
    const top = bbox.top + bbox.height + BAR_TOP * px;
    if (this.shown.states.length > 0) this.rect(u, bbox.left, top + BAR * px - px, bbox.width, px, this.theme.line);
    for (const span of this.shown.states) {
      const [left, right] = [u.valToPos(span.from, 'x', true), u.valToPos(span.to, 'x', true)];
      const height = (HEIGHTS[span.kind] ?? 1) * BAR * px;
      this.rect(u, left, top + BAR * px - height, right - left, height, this.theme.states[span.kind]);
    }
    ctx.restore();
  }

  private rect(u: uPlot, left: number, top: number, width: number, height: number, color: string): void {
    u.ctx.fillStyle = color;
    u.ctx.fillRect(left, top, Math.max(width, uPlot.pxRatio), height);
  }

  private triangle(u: uPlot, at: number): void {
    const { ctx, bbox } = u;
    const [bottom, half] = [bbox.top + bbox.height, 4 * uPlot.pxRatio];
    ctx.fillStyle = this.theme.soft;
    ctx.beginPath();
    ctx.moveTo(at - half, bottom);
    ctx.lineTo(at + half, bottom);
    ctx.lineTo(at, bottom - half * 1.6);
    ctx.fill();
  }

  /** Touches move and pinch; a pointer moves with Shift; a wheel moves sideways, and zooms as a pinch does. */
  private listen(): void {
    const { over } = this.plot;
    const held = new Map<number, number>();
    let begun: Window | undefined;
    let grabbed: number[] = [];
    const on = <K extends keyof HTMLElementEventMap>(kind: K, act: (event: HTMLElementEventMap[K]) => void, passive = true): void => {
      over.addEventListener(kind, act, { passive });
      this.stops.push(() => over.removeEventListener(kind, act));
    };
    const share = (x: number): number => (x - over.getBoundingClientRect().left) / over.clientWidth;
    const grab = (): void => {
      begun = held.size > 0 ? this.shown.window : undefined;
      grabbed = [...held.values()];
    };
    on('pointerdown', (event) => {
      if (event.pointerType === 'mouse' && !(event.button === 0 && event.shiftKey)) return;
      held.set(event.pointerId, share(event.clientX));
      if (event.pointerType === 'mouse') over.setPointerCapture(event.pointerId);
      grab();
    });
    on('pointermove', (event) => {
      if (!begun || !held.has(event.pointerId)) return;
      held.set(event.pointerId, share(event.clientX));
      this.handlers.ondrag(dragged(begun, grabbed, [...held.values()]));
    });
    for (const kind of ['pointerup', 'pointercancel'] as const) {
      on(kind, (event) => {
        if (!held.delete(event.pointerId)) return;
        if (this.shown.window !== begun) this.handlers.onwindow(this.shown.window);
        grab();
      });
    }
    on('wheel', (event) => {
      const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
      if (!sideways && !event.ctrlKey) return;
      event.preventDefault();
      const { from, to } = this.shown.window;
      const span = to - from;
      if (sideways) return this.handlers.onwindow({ from: from + (event.deltaX / over.clientWidth) * span, to: to + (event.deltaX / over.clientWidth) * span });
      const [factor, at] = [Math.exp(event.deltaY / 200), share(event.clientX)];
      const begin = from + span * at * (1 - factor);
      this.handlers.onwindow({ from: begin, to: begin + span * factor });
    }, false);
  }
}
