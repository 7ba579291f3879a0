import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe } from 'vitest';

/** Models and texts beside the checkout, which are not part of the project. */
export const sharedMaterial = join(import.meta.dirname, '..', '..', 'shared');

const required = process.env.LUTRA_REQUIRE_SHARED === '1';

/**
 * A suite that needs the material: skipped, and saying so, where it is missing; run in any case, and so failing, with
 * LUTRA_REQUIRE_SHARED=1.
 */
export function describeWithShared(name: string, suite: () => void): void {
  if (existsSync(sharedMaterial) || required) describe(name, suite);
  else describe.skip(`${name} (skipped: ../shared is missing)`, suite);
}

export const sharedModels = ['stories260k', 'babyllama-tok361', 'tinystories-656k', 'demo'] as const;
export const sharedModel = (name: (typeof sharedModels)[number]): string => join(sharedMaterial, 'models', name);
export const sharedText = (name: string): string => join(sharedMaterial, 'text', name);
