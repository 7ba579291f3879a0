import type { z } from 'zod';

const types: Readonly<Record<string, string>> = {
  int: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  string: 'a string',
  array: 'a list',
  tuple: 'a list',
  object: 'an object',
  record: 'an object',
};

/** What is wrong with a value that a schema refuses, and what it expects, in words of ours. */
export function issueText(issue: z.core.$ZodIssue): { message: string; expected?: string } {
  switch (issue.code) {
    case 'invalid_type':
      return { message: 'a value of another type is needed', expected: types[issue.expected] ?? issue.expected };
    case 'invalid_value':
      return {
        message: 'the value is none of those that there are',
        expected: issue.values.map((value) => JSON.stringify(value)).join(' or '),
      };
    case 'too_small':
      return outOfRange(issue.origin, issue.inclusive === false ? 'more than' : 'at least', issue.minimum);
    case 'too_big':
      return outOfRange(issue.origin, issue.inclusive === false ? 'less than' : 'at most', issue.maximum);
    case 'unrecognized_keys':
      return { message: `unknown key ${issue.keys.map((key) => JSON.stringify(key)).join(', ')}` };
    case 'custom':
    case 'invalid_union':
      // Schemas that say something themselves: a sentence of ours.
      return { message: issue.message.startsWith('Invalid input') ? 'the value cannot be used' : issue.message };
    default:
      return { message: 'the value cannot be used' };
  }
}

function outOfRange(origin: string, bound: string, limit: number | bigint) {
  const elements = origin === 'array' ? ' elements' : origin === 'string' ? ' characters' : '';
  return { message: `the ${elements ? 'length' : 'number'} is out of range`, expected: `${bound} ${limit}${elements}` };
}
