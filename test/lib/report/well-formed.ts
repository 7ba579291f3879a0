import { expect } from 'vitest';

/** Every tag is closed by its own, attributes are quoted and no sign stands bare. */
export function checkWellFormed(xml: string): void {
  const open: string[] = [];
  const tag = /<(\/?)([a-z][a-z0-9]*)((?: [a-zA-Z0-9-]+="[^"<&]*(?:&[a-z]+;[^"<&]*)*")*)(\/?)>/gi;
  const rest = xml.replace(tag, (...parts) => {
    const [, closes, name, , empty] = parts as string[];
    if (closes) expect(open.pop()).toBe(name);
    else if (!empty) open.push(name ?? '');
    return '';
  });
  expect(open).toEqual([]);
  expect(rest.replace(/&(amp|lt|gt|quot);/g, '')).not.toMatch(/[<>&]/);
}
