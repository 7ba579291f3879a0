import { createHash } from 'node:crypto';
import { lutraError } from '../errors.js';
import { readToEnd } from '../formats/index.js';

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
 * Reads a corpus. Documents are trimmed and empty ones dropped where a separator cuts; a text without separator is left as
 * it is.
 *
 * @throws `LUTRA_E_NOT_FOUND` for a missing file, `LUTRA_E_OPTION` for text that is not UTF-8, a separator that is nowhere in
 *   the text, or no source at all, `LUTRA_E_CALIBRATION_TOO_SHORT` for no text.
 */
export async function readCorpus(source: CorpusSource, signal?: AbortSignal): Promise<Corpus> {
  requireSource(source);
  if (source.texts !== undefined) return corpusOfTexts(source.texts, source.separator);
  const bytes = await readBytes(source.file, signal);
  const text = decode(bytes, source.file);
  return {
    documents: documentsOf([text], source.separator, source.file),
    sha256: createHash('sha256').update(bytes).digest('hex'),
    where: source.file,
  };
}

function corpusOfTexts(texts: readonly string[], separator: string | undefined): Corpus {
  const where = 'calibration.texts';
  if (!Array.isArray(texts) || !texts.every((text) => typeof text === 'string'))
    throw lutraError('LUTRA_E_OPTION', { message: 'texts are an array of strings', where });
  const hash = createHash('sha256');
  for (const text of texts) hash.update(text).update('\0');
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

async function readBytes(file: string, signal: AbortSignal | undefined): Promise<Buffer> {
  try {
    return await readToEnd(file, signal);
  } catch (cause) {
    signal?.throwIfAborted();
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw lutraError('LUTRA_E_NOT_FOUND', { message: 'there is no such calibration text', where: file, cause });
    throw lutraError('LUTRA_E_IO', { message: `the calibration text cannot be read: ${message}`, where: file, cause });
  }
}

function decode(bytes: Buffer, where: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw lutraError('LUTRA_E_OPTION', { message: 'the calibration text is not UTF-8', where, cause });
  }
}
