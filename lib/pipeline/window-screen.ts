import { findNonFinite, nonFinite } from '../quantization/index.js';
import type { Tensor } from '../tensor/index.js';
import type { BadWindow } from './job.js';
import { badWindow } from './strict.js';

interface Screening {
  /** Windows that may be left out. */
  budget: number;
  strict: boolean;
  /** What errors call the windows. */
  what: string;
  threads: number;
  signal: AbortSignal | undefined;
}

/** Leaves out windows whose activations are not finite, as many as the budget allows: one of them would spoil every Hessian. */
export class WindowScreen {
  readonly #bad: Set<number>;

  constructor(
    private readonly windows: number,
    private readonly screening: Screening,
    /** Of earlier blocks. */
    known: readonly BadWindow[] = [],
    private readonly onBad: (bad: BadWindow) => void = () => {},
  ) {
    this.#bad = new Set(known.map(({ window }) => window));
  }

  /** Numbers of the windows that are left, from 0. */
  get good(): number[] {
    return Array.from({ length: this.windows }, (_, window) => window).filter((window) => !this.#bad.has(window));
  }

  isBad(window: number): boolean {
    return this.#bad.has(window);
  }

  /**
   * Looks at what a block made of a window. @returns whether the window is left out from here on
   *
   * @throws `LUTRA_E_NON_FINITE` with block, window, token and channel where that is one window too many, `LUTRA_E_STRICT`
   */
  async drops(window: number, hidden: Tensor, block: { index: number; prefix: string }): Promise<boolean> {
    const { budget, strict, what, threads, signal } = this.screening;
    const call = { threads, signal, where: `${block.prefix}, ${what} ${window}` };
    const index = await findNonFinite(hidden, call);
    if (index < 0) return false;
    if (this.#bad.size >= budget) throw await nonFinite(hidden, index, call, suspectOf(budget));
    if (strict) throw badWindow(call.where);
    this.#bad.add(window);
    this.onBad({ block: block.index, window });
    return true;
  }
}

const suspectOf = (budget: number) => ({
  what: 'the activations',
  hint:
    budget === 0
      ? 'The model overflows on this text. `calibration.maxBadWindows`, --max-bad-windows lets such windows be left out.'
      : `More than the ${budget} windows that may be left out are like that: take another text, or look at the model.`,
});
