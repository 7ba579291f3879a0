import { extname } from 'node:path';
import type { LutraError } from '../errors.js';
import { lutraError } from '../errors.js';
import { defaultLimits } from './limits.js';
import { closeFile, openFile, readFully } from './open-file.js';
import { decodeUtf8, JsonReader, type JsonValue, quoted } from './strict-json.js';

/** What people write by hand is short; a model named by mistake is not. */
const maxBytes = 2 ** 18;
const maxNesting = 32;

/**
 * Reads settings that a person wrote: YAML 1.2 where the file is called .yaml or .yml, else JSON. A key that appears twice is
 * refused in both, and so are the anchors, tags and directives of YAML.
 *
 * @throws `LUTRA_E_OPTION` with file, line and column for everything that cannot be read, and for a file of more than 256 KiB;
 *   `LUTRA_E_NOT_FOUND`, `LUTRA_E_IO`
 */
export async function readSettings(path: string): Promise<JsonValue> {
  const file = await openFile(path);
  try {
    if (file.size > maxBytes)
      throw lutraError('LUTRA_E_OPTION', {
        message: 'the file is too large for settings',
        where: path,
        found: `${file.size} bytes`,
        expected: `at most ${maxBytes}`,
      });
    const bytes = new Uint8Array(file.size);
    await readFully(file, bytes, 0);
    return await parseSettings(bytes, path);
  } finally {
    await closeFile(file.handle);
  }
}

/** What `readSettings` reads from the content of `path`, whose name tells YAML from JSON. */
export async function parseSettings(bytes: Uint8Array, path: string): Promise<JsonValue> {
  const text = decodeUtf8(bytes, path, 'LUTRA_E_OPTION');
  return ['.yaml', '.yml'].includes(extname(path).toLowerCase()) ? yamlValue(text, path) : jsonValue(text, path);
}

function jsonValue(text: string, path: string): JsonValue {
  const reader = new SettingsReader(text, path);
  const value = reader.value();
  reader.end();
  return value;
}

/** Tells failures as a person looks for them, by line and column. */
class SettingsReader extends JsonReader {
  constructor(
    private readonly settings: string,
    private readonly path: string,
  ) {
    super(settings, path, { ...defaultLimits, nesting: maxNesting });
  }

  override fail(message: string, found?: string | number, expected?: string | number): LutraError {
    const where = placeOf(this.path, this.settings, this.position);
    return lutraError('LUTRA_E_OPTION', { message, where, found, expected });
  }
}

/** What settings have no use for, and what would make one text stand for more than it shows. */
const refused: Readonly<Record<string, string>> = {
  alias: 'aliases',
  anchor: 'anchors',
  tag: 'tags',
  'directive-line': 'directives',
};

/**
 * The parser's tokens are composed only when none lies deeper than `maxNesting`: composing recurses, and a process that runs
 * out of stack there is lost. The library is loaded by whoever has YAML to read.
 */
async function yamlValue(text: string, path: string): Promise<JsonValue> {
  const { Composer, CST, Lexer, Parser, visit } = await import('yaml');
  const fail = (offset: number, message: string, found?: string, expected?: string) =>
    lutraError('LUTRA_E_OPTION', { message, where: placeOf(path, text, offset), found, expected });
  const parser = new Parser();
  const tokens = [];
  let before = '';
  for (const lexeme of new Lexer().lex(text)) {
    const begin = parser.offset;
    tokens.push(...parser.next(lexeme));
    // The lexeme behind this mark is text, whatever it begins with.
    const what = before === CST.SCALAR ? undefined : refused[CST.tokenType(lexeme) ?? ''];
    before = lexeme;
    if (what) throw fail(begin, `${what} are not accepted`, quoted(lexeme));
    if (parser.stack.length > maxNesting)
      throw fail(begin, 'values are nested too deeply', undefined, `at most ${maxNesting} levels`);
  }
  tokens.push(...parser.end());
  const options = { version: '1.2', schema: 'core', stringKeys: true } as const;
  const [document, second] = new Composer(options).compose(tokens, true, text.length);
  for (const { code, message, pos } of [...(document?.errors ?? []), ...(document?.warnings ?? [])])
    throw fail(pos[0], code === 'DUPLICATE_KEY' ? `the key ${keyAt(text, pos[0])} appears twice` : message);
  if (!document || second) throw fail(second?.range[0] ?? 0, 'the file is not one document');
  visit(document, {
    Scalar: (key, { value, range }) => {
      if (key === 'key' && value === '__proto__') throw fail(range?.[0] ?? 0, 'the key "__proto__" is not accepted');
    },
  });
  return document.toJS();
}

/** The key of a mapping that begins there, as an error may show it. */
function keyAt(text: string, offset: number): string {
  const [key = ''] = /^(?:"[^"\n]*"|'[^'\n]*'|[^\n:,}]*)/.exec(text.slice(offset)) ?? [];
  return quoted(key.trim().replace(/^(["'])(.*)\1$/, '$2'));
}

/** As editors and compilers write it: file:line:column, counted from 1. */
function placeOf(path: string, text: string, offset: number): string {
  const before = text.slice(0, offset).split('\n');
  return `${path}:${before.length}:${(before.at(-1) ?? '').length + 1}`;
}
