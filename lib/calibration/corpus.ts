import { createHash } from 'node:crypto';
import { LutraError, lutraError } from '../errors.js';
import { readWholeFile, regularFileBytes } from '../formats/index.js';

/** Bytes of a text in a file: it becomes one string, and V8's strings end near 2^29 UTF-16 units. */
export const largestText = 500_000_000;

/** Where calibration text comes from: a UTF-8 file, or documents as strings. */
export type CorpusSource = ({ file: string; texts?: undefined } | { texts: readonly string[]; file?: undefined }) & {
  /** Cuts a file's text into documents; without it the file is one text. */
  separator?: string | undefined;
};

export interface Corpus {
  /** Each is tokenized with the tokenizer's BOS in front, where it has one. */
  documents: readonly string[];
  /** Of the file's bytes; of strings, of their UTF-8 bytes with a zero byte after each. */
  sha256: string;
  /** What errors call the corpus. */
  where: string;
}

/** @throws `LUTRA_E_OPTION` where a source is not exactly one of file and texts */
export function requireSource(source: { file?: unknown; texts?: unknown }): void {
  const [file, texts] = [source.file !== undefined, source.texts !== undefined];
  if (file !== texts) return;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'calibration reads one source of text',
    where: 'calibration',
    found: file ? 'both file and texts' : 'neither file nor texts',
    expected: 'file or texts',
  });
}

/**
 * Bytes of a corpus in UTF-8, before it is read.
 *
 * @throws `LUTRA_E_NOT_FOUND` for a missing file, `LUTRA_E_IO` for what is no regular file, `LUTRA_E_OPTION` for one above `largestText`
 */
export async function corpusBytes(source: CorpusSource): Promise<number> {
  requireSource(source);
  const { file, texts } = source;
  if (texts !== undefined) return requireStrings(texts).reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  const bytes = await onText(file, () => regularFileBytes(file));
  requireSize(bytes, file);
  return bytes;
}

/**
 * Reads a corpus. Documents are trimmed and empty ones dropped where a separator cuts; a text without separator is left as
 * it is.
 *
 * @throws what `corpusBytes` throws, `LUTRA_E_OPTION` for text that is not UTF-8, a separator that is nowhere in the text, or no
 *   source at all, `LUTRA_E_CALIBRATION_TOO_SHORT` for no text, `LUTRA_E_TRUNCATED` and `LUTRA_E_IO` where the file changes meanwhile.
 */
export async function readCorpus(source: CorpusSource, signal?: AbortSignal): Promise<Corpus> {
  requireSource(source);
  if (source.texts !== undefined) return corpusOfTexts(source.texts, source.separator);
  const bytes = await onText(source.file, () =>
    readWholeFile(source.file, (size) => requireSize(size, source.file), signal),
  );
  const text = decode(bytes, source.file);
  return {
    documents: documentsOf([text], source.separator, source.file),
    sha256: createHash('sha256').update(bytes).digest('hex'),
    where: source.file,
  };
}

const whereTexts = 'calibration.texts';

function requireStrings(texts: readonly string[]): readonly string[] {
  if (Array.isArray(texts) && texts.every((text) => typeof text === 'string')) return texts;
  throw lutraError('LUTRA_E_OPTION', { message: 'texts are an array of strings', where: whereTexts });
}

function corpusOfTexts(texts: readonly string[], separator: string | undefined): Corpus {
  const where = whereTexts;
  const hash = createHash('sha256');
  for (const text of requireStrings(texts)) hash.update(text).update('\0');
  return { documents: documentsOf(texts, separator, where), sha256: hash.digest('hex'), where };
}

function documentsOf(texts: readonly string[], separator: string | undefined, where: string): string[] {
  if (separator === '')
    throw lutraError('LUTRA_E_OPTION', { message: 'an empty separator cuts nowhere', where: 'calibration.separator' });
  if (separator !== undefined && !texts.some((text) => text.includes(separator)))
    throw lutraError('LUTRA_E_OPTION', {
      message: 'the separator is nowhere in the calibration text',
      where: 'calibration.separator',
      found: JSON.stringify(separator),
      hint: "A shell writes line breaks as $'\\n\\n'; without a separator the text stays whole.",
    });
  const pieces = separator === undefined ? texts : texts.flatMap((text) => text.split(separator)).map((t) => t.trim());
  const documents = pieces.filter((piece) => piece !== '');
  if (documents.length) return documents;
  throw lutraError('LUTRA_E_CALIBRATION_TOO_SHORT', {
    message: 'there is no calibration text',
    where,
    found: '0 characters',
  });
}

async function onText<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof LutraError) || error.code !== 'LUTRA_E_NOT_FOUND') throw error;
    throw lutraError('LUTRA_E_NOT_FOUND', { message: 'there is no such calibration text', where: file, cause: error });
  }
}

function requireSize(bytes: number, where: string): void {
  if (bytes <= largestText) return;
  throw lutraError('LUTRA_E_OPTION', {
    message: 'the calibration text is larger than it may be',
    where,
    found: `${bytes} bytes`,
    expected: `at most ${largestText}`,
    hint: 'Windows are drawn from a part of it just as well: give a shorter one.',
  });
}

function decode(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw lutraError('LUTRA_E_OPTION', { message: 'the calibration text is not UTF-8', where, cause });
  }
}
