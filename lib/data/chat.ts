import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Template } from '@huggingface/jinja'
import { SteepestError } from '../errors.js'
import { readSmallFile } from '../io/read.js'
import type { Message } from './examples.js'

/** A piece of a conversation's text, and whether it is an answer that is learned. */
export interface ChatPiece {
  readonly text: string
  readonly learned: boolean
}

const readText = async (path: string) => new TextDecoder().decode(await readSmallFile(path))

/** The text of special tokens, which templates use by name. */
function specialTokens(config: Readonly<Record<string, unknown>>): Record<string, string> {
  const entries = Object.entries(config).flatMap(([key, value]): [string, string][] => {
    const text = typeof value === 'string' ? value : (value as { content?: string } | null)?.content
    return key.endsWith('_token') && typeof text === 'string' ? [[key, text]] : []
  })
  return Object.fromEntries(entries)
}

/** How a model's tokenizer writes conversations: `chat_template.jinja`, or `chat_template` in `tokenizer_config.json`. */
export class ChatTemplate {
  private readonly template: Template

  private constructor(
    private readonly who: string,
    source: string,
    private readonly special: Readonly<Record<string, string>>,
  ) {
    try {
      this.template = new Template(source)
    } catch (error) {
      throw new SteepestError(
        'FORMAT',
        { who, rule: 'the chat template must be Jinja', got: (error as Error).message.slice(0, 120) },
        { cause: error },
      )
    }
  }

  /** The template of a model folder; undefined where it has none. */
  static async of(dir: string): Promise<ChatTemplate | undefined> {
    const path = join(dir, 'tokenizer_config.json')
    const config = existsSync(path) ? (JSON.parse(await readText(path)) as Record<string, unknown>) : {}
    const own = join(dir, 'chat_template.jinja')
    const source = existsSync(own) ? await readText(own) : config.chat_template
    // Several templates by name: the one that is called default.
    const named = Array.isArray(source)
      ? (source as { name: string; template: string }[]).find((t) => t.name === 'default')?.template
      : source
    return typeof named === 'string' ? new ChatTemplate(dir, named, specialTokens(config)) : undefined
  }

  /** The text of a conversation; with `answer`, up to where the next answer begins. */
  render(messages: readonly Message[], answer = false): string {
    try {
      return this.template.render({ ...this.special, messages: [...messages], add_generation_prompt: answer })
    } catch (error) {
      throw new SteepestError(
        'DATA',
        {
          who: this.who,
          rule: 'the chat template refused a conversation',
          got: (error as Error).message.slice(0, 160),
        },
        { cause: error },
      )
    }
  }

  /** The text of a conversation in pieces: what the assistant says is learned, the rest is read; what comes after its last answer is left out. */
  pieces(messages: readonly Message[]): ChatPiece[] {
    const last = messages.findLastIndex((message) => message.role === 'assistant')
    const whole = this.render(messages.slice(0, last + 1))
    const out: ChatPiece[] = []
    let done = 0
    const add = (until: number, learned: boolean) => {
      if (until > done) out.push({ text: whole.slice(done, until), learned })
      done = until
    }
    messages.forEach((message, i) => {
      if (message.role !== 'assistant') return
      const [begin, end] = this.answerIn(whole, messages.slice(0, i), message)
      add(begin, false)
      add(end, true)
    })
    return out
  }

  /** Where an answer begins and ends in the text of its conversation. */
  private answerIn(whole: string, before: readonly Message[], answer: Message): [begin: number, end: number] {
    const until = this.render(before, true)
    const through = this.render([...before, answer])
    if (whole.startsWith(until)) {
      if (through.startsWith(until) && whole.startsWith(through)) return [until.length, through.length]
      // Some templates write an answer otherwise once another comes after it, without its thoughts: as it stands then, it is learned.
      const said = answer.content.trim()
      const at = whole.indexOf(said, until.length)
      const closing = through.slice(through.lastIndexOf(said) + said.length)
      const end = at + said.length + closing.length
      if (at >= 0 && whole.slice(0, end).endsWith(said + closing)) return [until.length, end]
    }
    throw new SteepestError('DATA', {
      who: this.who,
      rule: 'the chat template must write the turns one after the other, so that answers can be told from the rest',
      fix: 'Give the data as `prompt` and `completion`',
    })
  }
}
