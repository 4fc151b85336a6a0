import { describe, expect, test } from 'vitest'
import { abilities, columns, cut, harmless, styled, wrapped } from '../../lib/train/terminal-text.js'

describe('columns of text', () => {
  test('wide characters take two, combining marks and styles none', () => {
    expect(columns('abc')).toBe(3)
    expect(columns('世界')).toBe(4)
    expect(columns('e\u0301')).toBe(1)
    expect(columns('🙂')).toBe(2)
    expect(columns(styled('abc', 'red', true))).toBe(3)
  })

  test('cut keeps whole characters and closes styles', () => {
    expect(cut('世界', 3)).toBe('世')
    expect(cut('abc', 3)).toBe('abc')
    expect(cut(styled('abc', 'red', true), 2)).toBe('\x1b[31mab\x1b[0m')
    expect(cut(`${styled('a', 'red', true)}bc`, 2)).toBe('\x1b[31ma\x1b[39mb')
  })

  test('wrapped breaks between words, long words anywhere, and stops at the limit', () => {
    expect(wrapped('the ship was in the harbour', 10, 9)).toEqual(['the ship', 'was in the', 'harbour'])
    expect(wrapped('abcdefghijkl mn', 5, 9)).toEqual(['abcde', 'fghij', 'kl mn'])
    expect(wrapped('a\n\nb\nc', 5, 3)).toEqual(['a', '', 'b'])
    expect(wrapped('', 5, 3)).toEqual([''])
    expect(wrapped('世界世界', 5, 9)).toEqual(['世界', '世界'])
  })

  test('a column too narrow for a character still ends', () => {
    expect(wrapped('世界', 1, 9)).toEqual(['', ''])
  })

  test('harmless shows control characters', () => {
    expect(harmless('a\tb\r\nc\x1b[31m\x00\x7f\x85', true)).toBe('a  b\nc·[31m···')
    expect(harmless('é世', false)).toBe('??')
  })
})

describe('abilities', () => {
  const of = (env: Record<string, string>, isTTY = true) => abilities({ isTTY }, env, 'linux')

  test('colour', () => {
    expect(of({}).color).toBe(true)
    expect(of({}, false).color).toBe(false)
    expect(of({ NO_COLOR: '1' }).color).toBe(false)
    expect(of({ NO_COLOR: '' }).color).toBe(true)
    expect(of({ TERM: 'dumb' }).color).toBe(false)
    expect(of({ FORCE_COLOR: '1' }, false).color).toBe(true)
    expect(of({ FORCE_COLOR: '1', NO_COLOR: '1' }, false).color).toBe(false)
  })

  test('characters follow the first locale that is set', () => {
    expect(of({ LANG: 'en_GB.UTF-8' }).unicode).toBe(true)
    expect(of({ LANG: 'C.utf8' }).unicode).toBe(true)
    expect(of({ LANG: 'en_GB.UTF-8', LC_ALL: 'C' }).unicode).toBe(false)
    expect(of({}).unicode).toBe(false)
    expect(abilities({}, {}, 'darwin').unicode).toBe(true)
  })
})
