import { type LutraErrorCode, lutraError } from '../errors.js';

/** Reads typed, bounded fields of a parsed JSON object; every refusal names the file and the field. */
export class Fields {
  readonly #values: Record<string, unknown>;
  readonly where: string;

  constructor(raw: unknown, where: string) {
    if (typeof raw !== 'object' || raw === null || Array.isArray(raw))
      throw lutraError('LUTRA_E_UNSUPPORTED_MODEL', { message: 'a model configuration is a JSON object', where });
    this.#values = raw as Record<string, unknown>;
    this.where = where;
  }

  /** The field's value; `undefined` where it is missing or null. */
  get(name: string): unknown {
    return Object.hasOwn(this.#values, name) ? (this.#values[name] ?? undefined) : undefined;
  }

  /** Whether the field is there, null or not. */
  has(name: string): boolean {
    return Object.hasOwn(this.#values, name);
  }

  /** Fields that are not null. */
  get names(): string[] {
    return Object.keys(this.#values).filter((name) => this.get(name) !== undefined);
  }

  refuse(code: LutraErrorCode, name: string, expected: string, hint?: string): never {
    const found = JSON.stringify(this.get(name)) ?? 'nothing';
    throw lutraError(code, {
      message: `cannot use ${name}`,
      where: this.where,
      found: found.length > 120 ? `${found.slice(0, 117)}...` : found,
      expected,
      hint,
    });
  }

  /** A whole number in [1, limit]. */
  count(name: string, limit: number, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= limit) return value;
    return this.refuse('LUTRA_E_SHAPE', name, `a whole number from 1 to ${limit}`);
  }

  /** A number in [least, most]. */
  number(name: string, least: number, most: number, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value === 'number' && value >= least && value <= most) return value;
    return this.refuse('LUTRA_E_SHAPE', name, `a number from ${least} to ${most}`);
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.get(name) ?? fallback;
    if (typeof value === 'boolean') return value;
    return this.refuse('LUTRA_E_UNSUPPORTED_MODEL', name, 'true or false');
  }

  /** Token ids given as a number, a list or not at all. */
  ids(name: string, limit: number): number[] {
    const value = this.get(name) ?? [];
    const list: unknown[] = Array.isArray(value) ? value : [value];
    const isId = (id: unknown): id is number => Number.isInteger(id) && (id as number) >= 0 && (id as number) < limit;
    if (list.length <= 1024 && list.every(isId)) return list;
    return this.refuse('LUTRA_E_SHAPE', name, `token ids below ${limit}`);
  }

  /** One of a few words, compared exactly. */
  word<Word extends string>(name: string, allowed: readonly Word[], fallback?: Word): Word {
    const value = this.get(name) ?? fallback;
    const match = allowed.find((word) => word === value);
    return match ?? this.refuse('LUTRA_E_UNSUPPORTED_MODEL', name, allowed.join(' or '));
  }

  /** A nested object, or null. */
  object(name: string): Fields | null {
    const value = this.get(name);
    return value === undefined ? null : new Fields(value, `${this.where}: ${name}`);
  }
}
