import { pageStyle } from './style.js';
import { escaped } from './svg.js';

/** What every page begins with. */
export const pageBeginning = '<!DOCTYPE html>';

/** A page in one file: no script, no network, light and dark. `parts` are of its body, empty ones are left out. */
export function pageOf(title: string, parts: readonly string[]): string {
  return [
    pageBeginning,
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8"/>',
    '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
    '<meta name="color-scheme" content="light dark"/>',
    `<title>${escaped(title)}</title>`,
    `<style>${pageStyle}</style>`,
    '</head>',
    '<body>',
    '<main>',
    `<h1>${escaped(title)}</h1>`,
    ...parts.filter((part) => part !== ''),
    '</main>',
    '</body>',
    '</html>',
    '',
  ].join('\n');
}

/** A table whose first column names its rows. Cells are numbers to the right, or words to the left. */
export function tableHtml(
  heads: readonly string[],
  rows: readonly (readonly string[])[],
  cells: 'numbers' | 'words' = 'numbers',
): string {
  const row = ([head = '', ...others]: readonly string[]) =>
    `<tr><th scope="row">${escaped(head)}</th>${others.map((cell) => `<td>${escaped(cell)}</td>`).join('')}</tr>`;
  return [
    `<div class="scroll"><table class="${cells}">`,
    `<thead><tr>${heads.map((head) => `<th scope="col">${escaped(head)}</th>`).join('')}</tr></thead>`,
    '<tbody>',
    ...rows.map(row),
    '</tbody></table></div>',
  ].join('\n');
}
